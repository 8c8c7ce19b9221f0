pub struct Classifier;
