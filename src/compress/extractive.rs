pub struct Extract {
    pub text: String,
}
pub fn extract(_t: &str, _q: &str, _b: u64, _c: &dyn Fn(&str) -> u64) -> Option<Extract> {
    None
}
