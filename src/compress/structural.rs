pub fn compress(_text: &str) -> Option<String> {
    None
}
#[derive(Default)]
pub struct Seen;
impl Seen {
    pub fn learn(&mut self, _t: &str) {}
    pub fn shorten(&self, _t: &str) -> Option<String> {
        None
    }
}
