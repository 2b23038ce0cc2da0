//! Names of the blobs that stages read and write. Datasets have three splits: train, validation and test.

pub const TRAIN_HR: &str = "train_hr.safetensors";
pub const TRAIN_LR: &str = "train_lr.safetensors";
pub const VALIDATION_HR: &str = "validation_hr.safetensors";
pub const VALIDATION_LR: &str = "validation_lr.safetensors";
pub const TEST_HR: &str = "test_hr.safetensors";
pub const TEST_LR: &str = "test_lr.safetensors";
/// Weights of the last step, with the model's configuration in the header.
pub const WEIGHTS: &str = "weights.safetensors";
/// Moving average of the weights, in the same format.
pub const EMA: &str = "ema.safetensors";
/// Training and validation loss by step.
pub const LOSS: &str = "loss.csv";
/// Statistics of the attention layers on validation images, by step; only for models with attention.
pub const ATTENTION: &str = "attention.csv";
/// `samples`: u8 `(N, K, H, W, 3)`.
pub const SAMPLES: &str = "samples.safetensors";
pub const METRICS: &str = "metrics.csv";
pub const SUMMARY: &str = "summary.json";
/// The candidates of a selection, best first.
pub const SELECTION: &str = "selection.csv";
pub const COMPARISON: &str = "comparison.png";
pub const LOSS_CURVES: &str = "loss.png";
