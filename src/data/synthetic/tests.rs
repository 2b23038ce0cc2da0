use super::*;
use crate::config::DegradeMethod;
use crate::data::cifar;
use crate::data::resample::{degrade, enlarge};

#[test]
fn an_image_is_a_function_of_seed_split_and_index() {
    let all = generate(7, Split::Train, 40);
    assert_eq!(generate_range(7, Split::Train, 30..40), all.slice(30..40));
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one_thread.install(|| generate(7, Split::Train, 40)), all);
    for other in [generate(8, Split::Train, 40), generate(7, Split::Validation, 40), generate(7, Split::Test, 40)] {
        let same = (0..40).filter(|&i| other.image(i) == all.image(i)).count();
        assert_eq!(same, 0);
    }
    let mut distinct: Vec<_> = (0..40).map(|i| all.image(i)).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 40);
}

/// The keys of `fetch` stages do not cover the generator's code. If these bytes change, increment the version of
/// `fetch`.
#[test]
fn images_are_pinned() {
    let digest = crate::store::Digest::of(&generate(0, Split::Train, 64).pixels);
    assert_eq!(digest.as_str(), "1ee99930f0e2568e7e2390e4d38e4febb09775defe5e4b4ad529ac218ac40dab");
}

#[test]
fn images_fit_cifar_records() {
    let images = generate(0, Split::Test, 5);
    assert_eq!(cifar::decode(&cifar::encode(&images, &[0; 5])).unwrap().0, images);
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * a.len() as f64 / squares).log10()
}

/// Generated images are as hard to enlarge as photographs: the bicubic PSNR of CIFAR-10 at scale 4 is 21.2 dB.
#[test]
fn bicubic_enlargement_is_as_inaccurate_as_on_photographs() {
    let images = generate(0, Split::Test, 500);
    let enlarged = enlarge(&degrade(&images, 4, DegradeMethod::Area).unwrap(), 4);
    let each: Vec<f64> = (0..images.count).map(|i| psnr(images.image(i), enlarged.image(i))).collect();
    let mean = each.iter().sum::<f64>() / each.len() as f64;
    assert!((19.0..23.5).contains(&mean), "{mean} dB");
    // No image is nearly constant.
    assert!(each.iter().all(|&v| v < 45.0), "{:?}", each.iter().cloned().fold(0.0, f64::max));
}

#[test]
fn colours_are_distributed_as_in_photographs() {
    let images = generate(1, Split::Train, 500);
    let n = images.pixels.len() as f64;
    let mean = images.pixels.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let deviation = (images.pixels.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    // CIFAR-10 has 121 and 64.
    assert!((105.0..140.0).contains(&mean) && (48.0..75.0).contains(&deviation), "{mean} {deviation}");
}
