//! End-to-end tests of picture folders and `upscale`: unrelated and damaged files, and how output files are replaced.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use common::{Folder, Output, Pipeline};
use image::{Rgb, RgbImage};
use serde_json::Value;

/// Returns a pipeline that reads the pictures in its own folder.
fn folder_of_pictures(broken: &str) -> Folder {
    let fetch = format!("{{kind: fetch, dataset: folder, path: ., size: 16, broken: {broken}}}");
    let folder = Pipeline::new().stage("images", &fetch).folder();
    (0..4).for_each(|i| write_picture(&folder, &format!("{i}.png"), i));
    folder
}

/// Writes a picture of a level.
fn write_picture(folder: &Folder, name: &str, level: u8) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(20, 16, |x, y| Rgb([level * 20 + x as u8, y as u8 * 5, level])).save(path).unwrap();
}

/// Returns the number of images in each split.
fn image_counts(folder: &Folder) -> [u64; 3] {
    let record: Value = serde_json::from_slice(&fs::read(folder.runs().join("p/latest/run.json")).unwrap()).unwrap();
    let metrics = &record["stages"][0]["metrics"];
    ["train", "validation", "test"].map(|split| metrics[format!("{split}_images")].as_f64().unwrap() as u64)
}

#[track_caller]
fn expect_success(output: Output) -> Output {
    assert_eq!(output.code, Some(0), "{output}");
    output
}

#[track_caller]
fn assert_cached(folder: &Folder) {
    let output = expect_success(folder.run(&["--json"]));
    assert_eq!(output.finished()["stages"]["images"], "cached", "{output}");
}

#[test]
fn results_and_hidden_files_among_pictures_are_ignored() {
    let folder = folder_of_pictures("refuse");
    expect_success(folder.run(&[]));
    assert_eq!(image_counts(&folder), [2, 1, 1]);
    write_picture(&folder, "runs/p/latest/comparison.png", 9);
    write_picture(&folder, ".thumbnails/0.png", 8);
    write_picture(&folder, "@eaDir/0.png", 7);
    folder.write("._0.png", "Mac OS X");
    symlink("runs/p/latest", folder.path().join("newest")).unwrap();
    symlink(".", folder.path().join("all")).unwrap();
    symlink("/nowhere", folder.path().join("notes.txt")).unwrap();
    assert_cached(&folder);
    // With another `runs` folder, the stage runs and must find the same files as the planner.
    let other = expect_success(folder.srpipe(&["run", "p.yaml", "--runs-dir", "others"]));
    for expected in
        ["hidden files and folders: ._0.png, .thumbnails, @eaDir", "srpipe results: ", "links to a parent", "runs"]
    {
        let log = folder.srpipe(&["logs", "images", "--runs-dir", "others"]).stdout;
        assert!(log.contains(expected), "{expected}: {log}\n{other}");
    }
    assert_cached(&folder);
    let refused = folder.srpipe(&["run", "p.yaml", "--set", "stages.images.path=runs"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("folder of srpipe results"), "{refused}");
}

#[test]
fn unreadable_pictures_count_as_broken_files() {
    let folder = folder_of_pictures("skip");
    symlink("/nowhere.png", folder.path().join("gone.png")).unwrap();
    folder.write("photo.heic", "");
    expect_success(folder.run(&[]));
    assert_eq!(image_counts(&folder), [2, 1, 1]);
    let log = folder.srpipe(&["logs", "images"]).stdout;
    assert!(log.contains("skipped ./gone.png: the link is broken") && log.contains("1 .heic"), "{log}");
    fs::remove_file(folder.path().join("gone.png")).unwrap();
    assert_cached(&folder);
    symlink("/nowhere.png", folder.path().join("gone.png")).unwrap();
    let refused = folder.run(&["--set", "stages.images.broken=refuse"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("1 of 5 files cannot be used"), "{refused}");
}

/// Returns a folder with a regression model that was trained for one step.
fn model() -> Folder {
    let folder = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 8, validation: 2, test: 2}")
        .stage("pairs", "{kind: degrade, input: images}")
        .stage(
            "net",
            "{kind: train, data: pairs, model: {base_channels: 4}, optim: {steps: 1, batch_size: 2}, \
             diffusion: {objective: regression}}",
        )
        .folder();
    expect_success(folder.run(&[]));
    folder
}

#[test]
fn outputs_replace_files_but_not_their_other_hard_links() {
    let folder = model();
    let at = |name: &str| folder.path().join(name);
    write_picture(&folder, "in.png", 1);
    let before = fs::read(at("in.png")).unwrap();
    for name in ["out.png", "backup.png", "page.html"] {
        fs::hard_link(at("in.png"), at(name)).unwrap();
    }
    fs::create_dir(at("new")).unwrap();
    for name in ["p.yaml", "tutorial.yaml", "srpipe.schema.json"] {
        fs::hard_link(at("in.png"), at("new").join(name)).unwrap();
    }
    expect_success(folder.srpipe(&["upscale", "in.png", "--model", "net", "-o", "out.png", "--bicubic"]));
    expect_success(folder.srpipe(&["report", "p", "-o", "page.html"]));
    expect_success(folder.srpipe(&["export", "p", "backup.png", "--force"]));
    expect_success(folder.srpipe(&["init", "new", "--template", "seed", "--force"]));
    assert_eq!(fs::read(at("in.png")).unwrap(), before, "the input was overwritten");
    // The remaining links are the file itself and `p.yaml`, which no command wrote to.
    assert_eq!(fs::metadata(at("in.png")).unwrap().nlink(), 2);
    let size = image::image_dimensions(at("out.png")).unwrap();
    assert_eq!((size, image::image_dimensions(at("out-bicubic.png")).unwrap()), ((80, 64), (80, 64)));
    assert!(
        fs::read_dir(folder.path()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with(".tmp"))
    );
}

#[test]
fn invalid_input_of_upscale_is_refused() {
    let folder = model();
    RgbImage::new(4200, 1).save(folder.path().join("long.png")).unwrap();
    let refused = folder.srpipe(&["upscale", "long.png", "--model", "net", "-o", "my long.webp"]);
    assert!(refused.code == Some(2), "{refused}");
    let expected = "16800×4 pixels, but a WebP file has at most 16383×16383; write a PNG file: -o 'my long.png'";
    assert!(refused.stderr.contains(expected), "{refused}");
    assert!(!folder.path().join("my long.webp").exists());

    // One weight is NaN.
    write_picture(&folder, "in.png", 1);
    let mut weights = fs::read(folder.runs().join("p/latest/net/ema.safetensors")).unwrap();
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    folder.write("nan.safetensors", &weights);
    let refused = folder.srpipe(&["upscale", "in.png", "--model", "nan.safetensors", "-o", "o.png"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("the weights are not finite: "), "{refused}");
    // All weights are finite, but their products overflow.
    weights[end - 4..].copy_from_slice(&f32::MAX.to_le_bytes());
    let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    for weight in weights[8 + header..].chunks_exact_mut(4) {
        weight.copy_from_slice(&1e30f32.to_le_bytes());
    }
    folder.write("huge.safetensors", &weights);
    let refused = folder.srpipe(&["upscale", "in.png", "--model", "huge.safetensors", "-o", "o.png"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("not a finite number"), "{refused}");
    assert!(!folder.path().join("o.png").exists());
}

/// All numbers in a run on constant images must be finite, whatever the model learns.
#[test]
fn constant_images_give_finite_numbers() {
    let train = |objective: &str, more: &str| {
        format!(
            "{{kind: train, data: pairs, model: {{base_channels: 4, zero_output: {more}, attention: {{kind: mhsa}}}}, \
             optim: {{steps: 3, batch_size: 2}}, diffusion: {{objective: {objective}, loss_weighting: min_snr}}, \
             validation: {{every: 1}}}}"
        )
    };
    let sample =
        |model: &str| format!("{{kind: sample, model: {model}, data: pairs, samples: 2, sampler: {{steps: 2}}}}");
    let folder = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: folder, path: photos, size: 32}")
        .stage("pairs", "{kind: degrade, input: images, method: bicubic}")
        .stage("noise", &train("v", "false"))
        .stage("eps", &train("eps", "true"))
        .stage("mean", &train("regression", "true"))
        .stage("of_noise", &sample("noise"))
        .stage("of_eps", &sample("eps"))
        .stage("of_mean", &sample("mean"))
        .stage("compare", "{kind: compare, arms: {noise: of_noise, eps: of_eps, mean: of_mean}, rows: 1}")
        .folder();
    fs::create_dir(folder.path().join("photos")).unwrap();
    // Enlarging is exact for some of these levels, and has rounding errors for others.
    for level in [0, 3, 77, 100, 177, 255] {
        let path = folder.path().join(format!("photos/{level}.png"));
        RgbImage::from_pixel(32, 32, Rgb([level; 3])).save(path).unwrap();
    }
    expect_success(folder.run(&[]));
    let latest = folder.runs().join("p/latest");
    for model in ["noise", "eps", "mean"] {
        let weights = fs::read(latest.join(model).join("ema.safetensors")).unwrap();
        let header = String::from_utf8_lossy(&weights[..8000]).into_owned();
        assert!(header.contains(r#"\"residual_scale\":1.0"#), "{model}: {header}");
    }
    let assert_finite = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let word = |word: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|found| found == word);
        assert!(!word("NaN") && !word("inf") && !word("Infinity"), "{}: {text}", path.display());
    };
    for file in
        ["noise/loss.csv", "mean/loss.csv", "noise/attention.csv", "compare/summary.json", "compare/metrics.csv"]
    {
        assert_finite(&latest.join(file));
    }
    assert_finite(&latest.join("run.json"));
    let summary: Value = serde_json::from_slice(&fs::read(latest.join("compare/summary.json")).unwrap()).unwrap();
    let arms = summary["arms"].as_object().unwrap();
    let figures = arms.values().flat_map(|arm| arm.as_object().unwrap().values());
    assert!(arms.len() == 4 && figures.clone().all(|figure| !figure.is_null()));
}
