//! Parameters of `fetch` and `degrade`: datasets and their low-resolution images.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blobs::{TEST_HR, TEST_LR, TRAIN_HR, TRAIN_LR, VALIDATION_HR, VALIDATION_LR};
use super::{Input, Kind, SecretUrl};

/// A split of a dataset that networks are evaluated on, and never trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationSplit {
    /// The images that validation losses are measured on, for choosing between models and parameters.
    Validation,
    /// The images that results are reported for.
    #[default]
    Test,
}

impl EvaluationSplit {
    /// Returns the names of the high-resolution and the low-resolution blob.
    pub const fn blobs(self) -> [&'static str; 2] {
        match self {
            Self::Validation => [VALIDATION_HR, VALIDATION_LR],
            Self::Test => [TEST_HR, TEST_LR],
        }
    }

    /// Returns the name, such as in "256 test images".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// Whether it is the default, which is left out of keys and files.
    pub fn is_test(&self) -> bool {
        *self == Self::Test
    }
}

impl fmt::Display for EvaluationSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Fetches a dataset and splits it into training, validation and test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "dataset", rename_all = "snake_case", deny_unknown_fields)]
pub enum FetchParams {
    /// CIFAR-10 (Krizhevsky 2009) from its binary archive: 50,000 training and 10,000 test images of 32×32.
    Cifar10(Cifar10Params),
    /// Generated images of 32×32 with edges, textures, repetition and symmetry; needs no network.
    Synthetic(SyntheticParams),
    /// Generated maps with a legend, on which attention matters: the legend tells how a distant colour is hatched.
    Maps(MapsParams),
    /// PNG, JPEG and WebP files of any size, in a folder and its subfolders.
    Folder(FolderParams),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cifar10Params {
    /// Where the archive is: an `https:` or `http:` address, or `file:PATH` (relative to the working directory).
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretUrl>,
    /// Further addresses of the same archive, tried in order when the first fails.
    #[serde(skip_serializing)]
    #[schemars(with = "Vec<String>")]
    pub mirrors: Vec<SecretUrl>,
    /// SHA-256 of the archive, in hexadecimal. Defaults to the official archive's if `url` is not given, is required for
    /// a web address, and is optional for `file:`.
    #[serde(skip_serializing)]
    pub sha256: Option<String>,
    /// Validation images, taken from the end of the training images.
    #[schemars(range(min = 1, max = 49_999))]
    pub validation: usize,
    /// The maximum number of images of each split.
    pub limit: Limits,
}

impl FetchParams {
    /// Returns the height and width of the dataset's images, in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Cifar10(_) | Self::Synthetic(_) => 32,
            Self::Maps(p) => p.size,
            Self::Folder(p) => p.size,
        }
    }

    /// Returns the maximum number of images of a split.
    pub fn max_images(&self, split: EvaluationSplit) -> usize {
        let (limits, sizes) = match self {
            Self::Cifar10(p) => (&p.limit, [p.validation, 10_000]),
            Self::Synthetic(p) => (&Limits::default(), [p.validation, p.test]),
            Self::Maps(p) => (&Limits::default(), [p.validation, p.test]),
            Self::Folder(p) => (&p.limit, [usize::MAX; 2]),
        };
        let (limit, size) = match split {
            EvaluationSplit::Validation => (limits.validation, sizes[0]),
            EvaluationSplit::Test => (limits.test, sizes[1]),
        };
        limit.unwrap_or(usize::MAX).min(size)
    }
}

impl Default for Cifar10Params {
    fn default() -> Self {
        Self { url: None, mirrors: vec![], sha256: None, validation: 1000, limit: Limits::default() }
    }
}

/// The maximum number of images of each split; the first ones are used, and all by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Training images.
    #[schemars(range(min = 1))]
    pub train: Option<usize>,
    /// Validation images.
    #[schemars(range(min = 1))]
    pub validation: Option<usize>,
    /// Test images.
    #[schemars(range(min = 1))]
    pub test: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SyntheticParams {
    /// Training images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub train: usize,
    /// Validation images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub validation: usize,
    /// Test images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub test: usize,
}

impl Default for SyntheticParams {
    fn default() -> Self {
        Self { train: 4096, validation: 256, test: 256 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MapsParams {
    /// Training images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub train: usize,
    /// Validation images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub validation: usize,
    /// Test images.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub test: usize,
    /// Height and width of the images in pixels, a multiple of `cell`.
    #[schemars(range(min = 16, max = 256))]
    pub size: usize,
    /// Height and width of a cell in pixels, a multiple of 4.
    #[schemars(range(min = 4, max = 64))]
    pub cell: usize,
    /// The number of colours of a map. Each needs two cells of the legend.
    #[schemars(range(min = 2, max = 6))]
    pub colours: usize,
    /// The number of hatchings to choose from: vertical and horizontal lines of one pixel, a chequerboard, then vertical,
    /// horizontal and diagonal lines of two pixels. Their mean is the plain colour in every block of 4×4 pixels.
    #[schemars(range(min = 2, max = 6))]
    pub hatchings: usize,
    /// Where the legend is.
    pub legend: LegendEdge,
}

impl Default for MapsParams {
    fn default() -> Self {
        Self {
            train: 8000,
            validation: 256,
            test: 256,
            size: 32,
            cell: 4,
            colours: 3,
            hatchings: 2,
            legend: LegendEdge::Top,
        }
    }
}

/// The edge of a map with the legend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LegendEdge {
    /// The first row of cells.
    #[default]
    Top,
    /// The first column of cells.
    Left,
    /// Either, chosen at random for each image.
    Random,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderParams {
    /// The folder, relative to the working directory.
    #[serde(skip_serializing)]
    pub path: String,
    /// Height and width of the dataset's images, in pixels.
    #[serde(default = "default_size")]
    #[schemars(range(min = 8, max = 1024))]
    pub size: usize,
    #[serde(default)]
    pub fit: Fit,
    /// Number of files for validation; by default a tenth of all.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub validation: Option<usize>,
    /// Number of files for testing; by default a tenth of all.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub test: Option<usize>,
    /// How to handle files that cannot be decoded, or that are smaller than `size` if nothing is scaled.
    #[serde(default)]
    pub broken: Broken,
    /// The maximum number of images of each split.
    #[serde(default)]
    pub limit: Limits,
}

impl FolderParams {
    /// Returns the maximum number of images of any split.
    pub fn most_of_a_split(&self) -> usize {
        let Limits { train, validation, test } = self.limit;
        [train, validation, test].into_iter().map(|limit| limit.unwrap_or(usize::MAX)).max().unwrap_or(usize::MAX)
    }
}

fn default_size() -> usize {
    32
}

/// How a file of any size is converted to square images of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// One image: the central square, scaled (Lanczos, antialiased).
    #[default]
    Cover,
    /// One image: the central `size`×`size` pixels, not scaled.
    Crop,
    /// As many images as fit side by side, not scaled; all images of a file are in the same split. A `limit` selects
    /// images from all parts of all files.
    Tiles,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// The stage fails and lists them.
    #[default]
    Refuse,
    /// They are skipped and listed in the log.
    Skip,
}

/// Computes the low-resolution image of every image of a dataset, rounded to 8 bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DegradeParams {
    /// The `fetch` stage whose images are degraded.
    #[serde(skip_serializing)]
    pub input: String,
    /// The factor by which height and width are reduced: 2, 4 or 8.
    #[serde(default = "default_scale")]
    #[schemars(extend("enum" = [2, 4, 8]))]
    pub scale: usize,
    #[serde(default)]
    pub method: DegradeMethod,
    /// Method `blur`: the standard deviation of the Gaussian, in pixels of the high-resolution image; 1.6 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.1, max = 100.0))]
    pub sigma: Option<f64>,
}

impl DegradeParams {
    pub fn degradation(&self) -> Degradation {
        Degradation { method: self.method, sigma: self.sigma.unwrap_or(Degradation::DEFAULT_SIGMA) }
    }
}

/// How low-resolution images are computed, apart from their scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Degradation {
    pub method: DegradeMethod,
    /// The standard deviation of a blur, in pixels of the high-resolution image. Other methods ignore it.
    pub sigma: f64,
}

impl Degradation {
    /// The blur of the degradation "BD" of super-resolution papers (Zhang et al. 2018).
    pub const DEFAULT_SIGMA: f64 = 1.6;
}

impl From<DegradeMethod> for Degradation {
    fn from(method: DegradeMethod) -> Self {
        Self { method, sigma: Self::DEFAULT_SIGMA }
    }
}

fn default_scale() -> usize {
    4
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DegradeMethod {
    /// The mean of each block of pixels.
    #[default]
    Area,
    /// Keys' cubic kernel (a = -0.5), widened by the scale against aliasing, as PIL and MATLAB do.
    Bicubic,
    /// Lanczos' kernel with three lobes, widened by the scale against aliasing, as PIL does.
    Lanczos,
    /// The tutorial's: bilinear between the central pixels, without antialiasing.
    Bilinear,
    /// A Gaussian blur of `sigma`, then bilinear between the central pixels.
    Blur,
}

impl Kind for FetchParams {
    const NAME: &'static str = "fetch";
    const VERSION: u32 = 1;
    const OUTPUTS: &'static [&'static str] = &[TRAIN_HR, VALIDATION_HR, TEST_HR];
    const HEADLINES: &'static [&'static str] = &["train", "images"];

    fn inputs(&self) -> Vec<Input> {
        vec![]
    }

    fn rename_inputs(&mut self, _: &mut dyn FnMut(&mut String)) {}

    fn seed(&self, pipeline: u64) -> Option<u64> {
        match self {
            Self::Synthetic(_) | Self::Maps(_) => Some(pipeline),
            Self::Cifar10(_) | Self::Folder(_) => None,
        }
    }
}

impl Kind for DegradeParams {
    const NAME: &'static str = "degrade";
    const VERSION: u32 = 1;
    const OUTPUTS: &'static [&'static str] = &[TRAIN_HR, TRAIN_LR, VALIDATION_HR, VALIDATION_LR, TEST_HR, TEST_LR];
    const REFERENCES: &'static [(&'static str, &'static [&'static str])] = &[("input", &[FetchParams::NAME])];
    const HEADLINES: &'static [&'static str] = &["train", "images"];

    fn inputs(&self) -> Vec<Input> {
        vec![Input::of("input", &self.input, &[TRAIN_HR, VALIDATION_HR, TEST_HR])]
    }

    fn rename_inputs(&mut self, rename: &mut dyn FnMut(&mut String)) {
        rename(&mut self.input);
    }
}
