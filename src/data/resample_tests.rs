use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

const METHODS: [DegradeMethod; 5] =
    [DegradeMethod::Area, DegradeMethod::Bicubic, DegradeMethod::Bilinear, DegradeMethod::Blur, DegradeMethod::Lanczos];

fn fixtures() -> Vec<u8> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fixtures.safetensors");
    let path = std::env::var("SRPIPE_FIXTURES").unwrap_or_else(|_| default.to_string());
    std::fs::read(&path).unwrap_or_else(|e| panic!("reading {path}: {e}"))
}

fn f32s(file: &SafeTensors, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn assert_close(got: &[f64], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let worst = got.iter().zip(expected).map(|(&g, &e)| (g - f64::from(e)).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-3, "the largest difference is {worst}");
}

/// The reference is PyTorch's `avg_pool2d` and `interpolate(..., antialias=True)`.
#[test]
fn results_match_pytorch() {
    let bytes = fixtures();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let hr = file.tensor("resample.hr").unwrap();
    let &[count, height, width, 3] = hr.shape() else { panic!("{:?}", hr.shape()) };
    let hr = Images::new(count, height, width, hr.data().to_vec());
    for (method, name) in [(DegradeMethod::Area, "resample.area4"), (DegradeMethod::Bicubic, "resample.bicubic4")] {
        let resampler = Resampler::degrade(height, width, 4, method).unwrap();
        let all: Vec<f64> = (0..count).flat_map(|i| resampler.apply_u8(hr.image(i))).collect();
        assert_close(&all, &f32s(&file, name));
        let rounded: Vec<u8> = f32s(&file, name).iter().map(|&v| to_u8(f64::from(v))).collect();
        let differing = degrade(&hr, 4, method).unwrap().pixels.iter().zip(&rounded).filter(|(a, b)| a != b).count();
        // The area mean is exact in f32; the bicubic result may round to the other side of a half.
        assert!(differing <= if method == DegradeMethod::Area { 0 } else { 1 }, "{differing} pixels of {name} differ");
    }
    let lr = degrade(&hr, 4, DegradeMethod::Area).unwrap();
    let enlarge = Resampler::enlarge(lr.height, lr.width, 4);
    let up: Vec<f64> = (0..lr.count).flat_map(|i| enlarge.apply_u8(lr.image(i))).collect();
    assert_close(&up, &f32s(&file, "resample.up"));
}

#[test]
fn bilinear_is_the_mean_of_the_four_central_pixels() {
    let image = Images::new(1, 8, 8, (0..192).map(|i| (i * 37 % 256) as u8).collect());
    for scale in [2, 4, 8] {
        let small = degrade(&image, scale, DegradeMethod::Bilinear).unwrap();
        for (y, x, c) in pixel_indices(8 / scale) {
            let at = |dy: usize, dx: usize| {
                let (y, x) = (y * scale + scale / 2 - dy, x * scale + scale / 2 - dx);
                f64::from(image.pixels[(y * 8 + x) * 3 + c])
            };
            let mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
            assert_eq!(small.pixels[(y * (8 / scale) + x) * 3 + c], to_u8(mean));
        }
    }
}

fn pixel_indices(side: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..side * side * 3).map(move |i| (i / 3 / side, i / 3 % side, i % 3))
}

/// Keys' kernel reproduces linear functions away from the edges.
#[test]
fn bicubic_preserves_a_ramp() {
    let (width, factor) = (16, 4);
    let ramp: Vec<f64> = pixel_indices(width).map(|(y, x, c)| 3.0 * x as f64 - 2.0 * y as f64 + c as f64).collect();
    let large = Resampler::enlarge(width, width, factor).apply(&ramp);
    let side = width * factor;
    let center = |i: usize| (i as f64 + 0.5) / factor as f64 - 0.5;
    let inner = 2 * factor..side - 2 * factor;
    for (y, x, c) in pixel_indices(side).filter(|(y, x, _)| inner.contains(y) && inner.contains(x)) {
        let expected = 3.0 * center(x) - 2.0 * center(y) + c as f64;
        assert!((large[(y * side + x) * 3 + c] - expected).abs() < 1e-12);
    }
}

#[test]
fn impossible_scales_are_refused() {
    let image = Images::new(1, 12, 10, vec![0; 360]);
    for (scale, method, expected) in [
        (4, DegradeMethod::Area, "divides both sides"),
        (0, DegradeMethod::Area, "at least 1"),
        (1, DegradeMethod::Bilinear, "even scale"),
    ] {
        let error = degrade(&image, scale, method).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The reference is SciPy's `gaussian_filter1d(x, sigma, mode="constant", truncate=4)`, divided by that of ones, and the
/// mean of the two central values of each block.
#[test]
fn blur_matches_scipy() {
    let row: Vec<u8> = [10, 200, 30, 90, 250, 0, 60, 120].iter().flat_map(|&v| [v; 3]).collect();
    let image = row.repeat(4);
    for (sigma, expected) in
        [(1.6, [99.4169671400641, 92.04528715829903]), (0.7, [101.71745228969593, 63.77334881655305])]
    {
        let degradation = Degradation { method: DegradeMethod::Blur, sigma };
        let small = Resampler::degrade(4, 8, 4, degradation).unwrap().apply_u8(&image);
        for (value, expected) in small.iter().zip(expected.iter().flat_map(|v| [v; 3])) {
            assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
        }
    }
}

/// Pillow 13: `Image.fromarray(rows).resize((2, 2), Image.LANCZOS)` in mode `F`, and the same for four columns.
#[test]
fn lanczos_matches_pillow() {
    let row: Vec<u8> = [10, 200, 30, 90, 250, 0, 60, 120].iter().flat_map(|&v| [v; 3]).collect();
    let image = row.repeat(8);
    let assert_row = |scale: usize, expected: &[f64]| {
        let small = Resampler::degrade(8, 8, scale, DegradeMethod::Lanczos).unwrap().apply_u8(&image);
        for (value, expected) in small.iter().zip(expected.iter().flat_map(|v| [v; 3])) {
            assert!((value - expected).abs() < 1e-4, "{value} is not {expected}");
        }
    };
    assert_row(4, &[101.78390503, 96.26756287]);
    assert_row(2, &[88.2625885, 112.34488678, 113.95952606, 65.32188416]);
}

proptest! {
    #[test]
    fn a_constant_stays_constant(value: u8, scale in prop::sample::select(vec![2usize, 4, 8])) {
        let image = Images::new(2, 16, 24, vec![value; 2 * 16 * 24 * 3]);
        for method in METHODS {
            let small = degrade(&image, scale, method).unwrap();
            prop_assert_eq!((small.height, small.width), (16 / scale, 24 / scale));
            prop_assert!(small.pixels.iter().all(|&v| v == value));
            let large = enlarge(&small, scale);
            prop_assert_eq!((large.height, large.width), (16, 24));
            prop_assert!(large.pixels.iter().all(|&v| v == value));
        }
    }

    /// Area shrinking preserves the mean exactly if nothing is rounded.
    #[test]
    fn area_preserves_the_mean(pixels in prop::collection::vec(any::<u8>(), 192)) {
        let small = Resampler::degrade(8, 8, 4, DegradeMethod::Area).unwrap().apply_u8(&pixels);
        let sum: f64 = pixels.iter().map(|&v| f64::from(v)).sum();
        prop_assert_eq!(small.iter().sum::<f64>() * 16.0, sum);
    }
}
