//! End-to-end tests of `init` and `upscale`.

mod common;

use common::{Folder, Pipeline};
use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageFormat, LumaA, Rgb, RgbImage, Rgba, RgbaImage};

#[test]
fn init_writes_a_pipeline_and_overwrites_one_only_if_forced() {
    let folder = Pipeline::new().folder();
    for template in ["quickstart", "ablation", "sweep", "folder", "tutorial"] {
        let output = folder.srpipe(&["init", "--template", template]);
        assert_eq!(output.code, Some(0), "{output}");
        assert_eq!(output.stdout, format!("./srpipe.schema.json\n./{template}.yaml\n"));
        assert!(output.stderr.contains(&format!("srpipe run {template}.yaml")), "{output}");
        let file = format!("{template}.yaml");
        let checked = folder.srpipe(&["check", &file]);
        assert_eq!(checked.code, Some(0), "{checked}");
    }
    // The schema named in the first line equals the output of `srpipe schema`.
    let text = std::fs::read_to_string(folder.path().join("quickstart.yaml")).unwrap();
    assert!(text.starts_with("# yaml-language-server: $schema=srpipe.schema.json\n"), "{text}");
    let schema = std::fs::read_to_string(folder.path().join("srpipe.schema.json")).unwrap();
    assert_eq!(schema, folder.srpipe(&["schema"]).stdout);

    folder.write("quickstart.yaml", "mine");
    let refused = folder.srpipe(&["init"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("./quickstart.yaml already exists: overwrite it with --force"), "{refused}");
    assert_eq!(std::fs::read(folder.path().join("quickstart.yaml")).unwrap(), b"mine");
    assert_eq!(folder.srpipe(&["init", "--force"]).code, Some(0));
    assert_eq!(std::fs::read_to_string(folder.path().join("quickstart.yaml")).unwrap(), text);

    let elsewhere = folder.srpipe(&["init", "new/study", "--template", "sweep"]);
    assert_eq!(elsewhere.code, Some(0), "{elsewhere}");
    assert!(elsewhere.stderr.contains("cd new/study") && folder.path().join("new/study/sweep.yaml").is_file());
}

/// Returns a folder with two small trained models: `model`, and the regression model `mean`.
fn trained() -> Folder {
    let common = "data: pairs, model: {base_channels: 4}, validation: {every: 100}";
    let pipeline = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 16, validation: 4, test: 4}")
        .stage("pairs", "{kind: degrade, input: images, scale: 4}")
        .stage("model", &format!("{{kind: train, {common}, optim: {{steps: 20, batch_size: 8}}}}"))
        .stage(
            "mean",
            &format!(
                "{{kind: train, {common}, optim: {{steps: 20, batch_size: 8}}, diffusion: {{objective: regression}}}}"
            ),
        )
        .stage("samples", "{kind: sample, model: model, data: pairs, sampler: {steps: 2}, samples: 1, limit: 1}");
    let folder = pipeline.folder();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(0), "{output}");
    folder
}

impl Folder {
    fn save(&self, name: &str, image: impl Into<DynamicImage>, format: ImageFormat) {
        image.into().save_with_format(self.path().join(name), format).unwrap();
    }

    /// Runs `upscale` with additional arguments and returns the first picture that it wrote.
    fn upscaled(&self, args: &[&str]) -> DynamicImage {
        let output = self.srpipe(&[&["upscale", "--steps", "2"], args].concat());
        assert_eq!(output.code, Some(0), "{output}");
        image::open(self.path().join(output.stdout.lines().next().unwrap())).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }
}

#[test]
fn pictures_of_every_kind_are_upscaled() {
    let folder = trained();
    // Pictures of every kind, whose sizes are smaller than a tile of 8×8 or not a multiple of it.
    let rgb = RgbImage::from_fn(19, 11, |x, y| Rgb([10 * x as u8, 20 * y as u8, 100]));
    folder.save("rgb.png", rgb.clone(), ImageFormat::Png);
    folder.save("line.jpeg", RgbImage::from_fn(1, 30, |_, y| Rgb([8 * y as u8; 3])), ImageFormat::Jpeg);
    folder.save("grey.png", GrayImage::from_fn(9, 9, |x, _| image::Luma([25 * x as u8])), ImageFormat::Png);
    folder.save("alpha.webp", RgbaImage::from_fn(9, 5, |x, y| Rgba([99, 9, y as u8, 28 * x as u8])), ImageFormat::WebP);
    folder.save("both.png", GrayAlphaImage::from_fn(9, 5, |x, _| LumaA([40, 255 - x as u8])), ImageFormat::Png);

    let image = folder.upscaled(&["rgb.png", "--model", "model", "-o", "out.png"]);
    assert_eq!((image.width(), image.height(), image.color()), (76, 44, image::ColorType::Rgb8));
    // Good quality would take an hour of training, but the mean brightness must match.
    let mean = |i: &RgbImage| i.as_raw().iter().map(|&v| v as f64).sum::<f64>() / i.as_raw().len() as f64;
    assert!((mean(&image.to_rgb8()) - mean(&rgb)).abs() < 25.0);
    for (input, output, size, color) in [
        ("line.jpeg", "line.jpg", (4, 120), image::ColorType::Rgb8),
        ("grey.png", "grey-out.png", (36, 36), image::ColorType::L8),
        ("alpha.webp", "alpha-out.webp", (36, 20), image::ColorType::Rgba8),
        ("both.png", "both-out.png", (36, 20), image::ColorType::La8),
        ("both.png", "both.jpg", (36, 20), image::ColorType::L8),
    ] {
        let image = folder.upscaled(&[input, "--model", "mean", "-o", output]);
        assert_eq!(((image.width(), image.height()), image.color()), (size, color), "{input} {output}");
    }

    // `STAGE`, `PIPELINE/STAGE` and the checkpoint file select the same model.
    let checkpoint = folder.runs().join("p/latest/model/ema.safetensors");
    for (model, out) in [("p/model", "a.png"), (checkpoint.to_str().unwrap(), "b.png")] {
        folder.upscaled(&["rgb.png", "--model", model, "-o", out]);
        assert_eq!(folder.bytes(out), folder.bytes("out.png"), "{model}");
    }
    let output = folder.srpipe(&[
        "upscale",
        "rgb.png",
        "--model",
        "model",
        "-o",
        "many.png",
        "--steps",
        "2",
        "--samples",
        "2",
        "--bicubic",
    ]);
    assert_eq!(output.stdout, "many-1.png\nmany-2.png\nmany-bicubic.png\n", "{output}");
    assert!(output.stderr.contains("19×11 pixels became 76×44"), "{output}");
    assert_eq!(folder.bytes("many-1.png"), folder.bytes("out.png"));
    assert_ne!(folder.bytes("many-2.png"), folder.bytes("out.png"));
    assert_eq!(image::open(folder.path().join("many-bicubic.png")).unwrap().width(), 76);
    folder.upscaled(&["rgb.png", "--model", "model", "-o", "seed.png", "--seed", "1"]);
    assert_ne!(folder.bytes("seed.png"), folder.bytes("out.png"));
}

#[test]
fn invalid_input_of_upscale_is_reported() {
    let folder = trained();
    folder.save("photo.png", RgbImage::new(4, 4), ImageFormat::Png);
    folder.write("text.png", "no picture");
    folder.write("text.safetensors", "no checkpoint");
    let photo = |args: &[&'static str]| [&["photo.png"], args].concat();
    for (args, expected) in [
        (
            vec!["none.png", "--model", "model", "-o", "x.png"],
            "cannot read none.png: no such file; give the path of a PNG, JPEG or WebP image",
        ),
        (vec!["text.png", "--model", "model", "-o", "x.png"], "text.png: cannot read this as a PNG, JPEG or WebP"),
        (photo(&["--model", "model", "-o", "x.tiff"]), "x.tiff: the output file must end in .png, .jpg or .webp"),
        (photo(&["--model", "model", "-o", "none/x.png"]), "the folder none does not exist; create it"),
        (photo(&["--model", "model", "-o", "./photo.png"]), "the output would overwrite the input image"),
        (photo(&["--model", "modle", "-o", "x.png"]), "no latest run has a stage modle; did you mean `model`?"),
        (
            photo(&["--model", "samples", "-o", "x.png"]),
            "samples is a `sample` stage, expected a `train` stage; the run has model, mean",
        ),
        (photo(&["--model", "none.safetensors", "-o", "x.png"]), "--model: cannot read none.safetensors: no such file"),
        (photo(&["--model", "text.safetensors", "-o", "x.png"]), "text.safetensors: this is not a safetensors file"),
        (photo(&["--model", "photo.png", "-o", "x.png"]), "photo.png: this is not a safetensors file"),
        (
            photo(&["--model", "mean", "-o", "x.png", "--samples", "2"]),
            "mean is a regression model, which has only one result",
        ),
        (
            photo(&["--model", "model", "-o", "x.png", "--steps", "2000"]),
            "must be at most 1000, the timesteps of model",
        ),
        (photo(&["--model", "model", "-o", "x.png", "--runs-dir", "nowhere"]), "no runs in nowhere yet"),
    ] {
        let output = folder.srpipe(&[&["upscale"], &args[..]].concat());
        assert_eq!(output.code, Some(2), "{args:?} {output}");
        assert!(output.stderr.contains(expected), "{args:?} {output}");
    }
    assert!(!folder.path().join("x.png").exists());
}

#[test]
fn an_existing_schema_is_kept() {
    let folder = Pipeline::new().folder();
    folder.write("srpipe.schema.json", "{}\n");
    let output = folder.srpipe(&["init", "--json"]);
    assert_eq!(output.code, Some(0), "{output}");
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(json, serde_json::json!({"schema": 1, "files": ["./quickstart.yaml"]}), "{output}");
    assert!(output.stderr.contains("./srpipe.schema.json already exists"), "{output}");
    assert_eq!(std::fs::read_to_string(folder.path().join("srpipe.schema.json")).unwrap(), "{}\n");
    let output = folder.srpipe(&["init", "--force"]);
    assert_eq!(output.code, Some(0), "{output}");
    assert!(std::fs::read_to_string(folder.path().join("srpipe.schema.json")).unwrap().len() > 1000);
}
