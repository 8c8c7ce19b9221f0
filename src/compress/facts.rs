pub struct Lost {
    pub total: usize,
    count: usize,
}
impl Lost {
    pub fn share(&self) -> f64 {
        0.0
    }
    pub fn count(&self) -> usize {
        self.count
    }
}
pub fn lost(_a: &str, _b: &str) -> Lost {
    Lost { total: 0, count: 0 }
}
