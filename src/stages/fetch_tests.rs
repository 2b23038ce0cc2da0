use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::config::{Limits, SyntheticParams};
use crate::stages::testing::Bench;

/// Creates an archive with `records` images per batch. Image i is grey of level i, counted through the training
/// batches; the test images have levels from 200.
fn archive(records: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(vec![], Compression::fast()));
    let batches = (1..=5).map(|i| (format!("data_batch_{i}.bin"), (i - 1) * records));
    for (name, first) in batches.chain([("test_batch.bin".to_string(), 200)]) {
        let pixels = (first..first + records).flat_map(|i| std::iter::repeat_n(i as u8, 3072)).collect();
        let bytes = cifar::encode(&Images::new(records, 32, 32, pixels), &vec![3; records]);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, format!("cifar-10-batches-bin/{name}"), &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn params(url: &str, sha256: Option<&str>) -> FetchParams {
    let limit = Limits { train: Some(7), validation: None, test: Some(1) };
    let sha256 = sha256.map(str::to_string);
    FetchParams::Cifar10(Cifar10Params { url: Some(url.into()), mirrors: vec![], sha256, validation: 2, limit })
}

fn levels(images: &Images) -> Vec<u8> {
    (0..images.count).map(|i| images.image(i)[0]).collect()
}

/// Returns the path of an [`archive`] with 2 images per batch, its address as `file:`, and its digest.
fn archive_file(bench: &mut Bench) -> (PathBuf, String, String) {
    let path = bench.folder.path().join("archive.tar.gz");
    std::fs::write(&path, archive(2)).unwrap();
    let sha256 = download::file_sha256(&path).unwrap();
    bench.sources.insert("archive".to_string(), sha256.parse().unwrap());
    let url = format!("file:{}", path.display());
    (path, url, sha256)
}

#[test]
fn a_local_archive_is_split() {
    let mut bench = Bench::new();
    let (_, url, sha256) = archive_file(&mut bench);
    for sha256 in [None, Some(sha256.to_uppercase())] {
        let outcome = run(&params(&url, sha256.as_deref()), &bench.context(&|| false)).unwrap();
        assert_eq!(levels(&bench.images(&outcome, blobs::TRAIN_HR).0), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(levels(&bench.images(&outcome, blobs::VALIDATION_HR).0), [8, 9]);
        assert_eq!(levels(&bench.images(&outcome, blobs::TEST_HR).0), [200]);
        assert_eq!(outcome.metrics.values().copied().collect::<Vec<_>>(), [1.0, 7.0, 2.0]);
    }
}

#[test]
fn errors_name_a_changed_missing_or_damaged_archive() {
    let mut bench = Bench::new();
    let (path, url, _) = archive_file(&mut bench);
    let error = |bench: &Bench| format!("{:#}", run(&params(&url, None), &bench.context(&|| false)).unwrap_err());
    std::fs::write(&path, &archive(2)[..300]).unwrap();
    let changed = error(&bench);
    assert!(changed.contains("archive.tar.gz has changed since"), "{changed}");
    bench.sources.insert("archive".to_string(), Digest::of(&archive(2)[..300]));
    let broken = error(&bench);
    let (doing, reason) = broken.split_once(": the archive cannot be read: ").unwrap();
    assert!(doing.starts_with("reading the archive ") && doing.ends_with("archive.tar.gz"), "{broken}");
    assert!(reason.contains("truncated"), "{broken}");
    let (_, cause) = reason.split_once("file: ").unwrap();
    assert!(!cause.is_empty() && broken.matches(cause).count() == 1, "the cause is given once: {broken}");
    std::fs::remove_file(&path).unwrap();
    assert!(error(&bench).contains("archive.tar.gz"));
}

/// A server that answers every request with `status` and `body`.
fn serve(status: u16, body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/a.tar.gz", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut to = connection.unwrap();
            let request = BufReader::new(to.try_clone().unwrap()).lines();
            request.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
            let _ = write!(to, "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = to.write_all(&body);
        }
    });
    address
}

#[test]
fn a_downloaded_archive_gives_the_same_blobs_and_leaves_no_files() {
    let mut bench = Bench::new();
    let (_, url, sha256) = archive_file(&mut bench);
    let local = run(&params(&url, None), &bench.context(&|| false)).unwrap();
    let address = serve(200, archive(2));
    let remote = run(&params(&address, Some(&sha256)), &bench.context(&|| false)).unwrap();
    assert_eq!(remote, local);
    assert_eq!(std::fs::read_dir(bench.folder.path().join("work")).unwrap().count(), 0);
    let whole = archive(2).len() as u64;
    let arrived = |event: &StageEvent| matches!(event, StageEvent::Progress { done, unit, .. } if *done == whole && unit == "bytes");
    assert!(bench.events.lock().unwrap().iter().any(arrived));
}

#[test]
fn a_failed_download_reports_every_attempt_and_a_remedy() {
    let bench = Bench::new();
    let (first, mirror) = (serve(404, vec![]), serve(403, vec![]));
    let FetchParams::Cifar10(mut params) = params(&first, Some(&"00".repeat(32))) else { unreachable!() };
    params.mirrors = vec![mirror.as_str().into()];
    let error = run(&FetchParams::Cifar10(params), &bench.context(&|| false)).unwrap_err().to_string();
    for part in [format!("{first}: HTTP status 404"), format!("{mirror}: HTTP status 403"), "`url: file:PATH`".into()] {
        assert!(error.contains(&part), "{error}");
    }
    assert!(!error.contains("is kept"), "nothing has arrived: {error}");
}

#[test]
fn a_partial_download_is_kept_unless_its_checksum_is_wrong() {
    let bench = Bench::new();
    let error = |address: &str| {
        let params = params(address, Some(&"00".repeat(32)));
        run(&params, &bench.context(&|| false)).unwrap_err().to_string()
    };
    let part = bench.folder.path().join("work/archive.part");
    let wrong = error(&serve(200, archive(2)));
    assert!(wrong.contains("wrong SHA-256") && !wrong.contains("is kept"), "{wrong}");
    assert!(!part.exists());
    std::fs::write(&part, "the beginning").unwrap();
    let gone = error(&serve(404, vec![]));
    assert!(gone.contains("run again (the partial download is kept)"), "{gone}");
    assert!(part.exists());
}

#[test]
fn interruptions_are_distinguished_from_failures() {
    let mut bench = Bench::new();
    let (_, url, sha256) = archive_file(&mut bench);
    let synthetic = FetchParams::Synthetic(SyntheticParams { train: 3, validation: 1, test: 1 });
    for params in [params(&url, None), params(&serve(200, archive(2)), Some(&sha256)), synthetic] {
        assert!(run(&params, &bench.context(&|| true)).unwrap_err().is::<Interrupted>());
    }
}

#[test]
fn synthetic_images_are_a_function_of_the_seed() {
    let bench = Bench::new();
    let params = FetchParams::Synthetic(SyntheticParams { train: CHUNK + 2, validation: 3, test: 4 });
    let first = run(&params, &bench.context(&|| false)).unwrap();
    let (train, _) = bench.images(&first, blobs::TRAIN_HR);
    assert_eq!(train, synthetic::generate(1, Split::Train, CHUNK + 2));
    assert_eq!(bench.images(&first, blobs::TEST_HR).0, synthetic::generate(1, Split::Test, 4));
    assert_eq!(first.metrics["validation_images"], 3.0);
    let other = run(&params, &Context { seed: 2, ..bench.context(&|| false) }).unwrap();
    assert_ne!(first.outputs, other.outputs);
}

#[test]
fn a_folder_of_images_is_split_by_content_and_broken_files_are_named() {
    let mut bench = Bench::new();
    let at = |name: &str| bench.folder.path().join(name);
    let save = |name: &str, level: u8| image::RgbImage::from_pixel(40, 33, image::Rgb([level; 3])).save(at(name));
    for level in 0..6 {
        save(&format!("{level}.png"), level).unwrap();
    }
    save("copy.png", 3).unwrap();
    std::fs::write(at("broken.jpg"), "no image").unwrap();
    let path = bench.folder.path().to_str().unwrap().to_string();
    let content = |broken: Broken| {
        let listing = folder::list(Path::new(&path), Some(bench.store.runs_dir())).unwrap();
        let digests: Vec<_> = listing.files.iter().map(|file| Digest::of(&std::fs::read(file).unwrap())).collect();
        listing.content(&digests, broken)
    };
    let sources = BTreeMap::from([("images".to_string(), content(Broken::Refuse))]);
    let params = |broken: &str| {
        let json = serde_json::json!({"dataset": "folder", "path": path, "size": 32, "test": 2, "broken": broken});
        serde_json::from_value::<FetchParams>(json).unwrap()
    };
    let error = format!("{:#}", run(&params("refuse"), &bench.context(&|| false)).unwrap_err());
    assert!(error.contains("no source `images`"), "{error}");
    bench.sources = sources;
    let error = format!("{:#}", run(&params("refuse"), &bench.context(&|| false)).unwrap_err());
    assert!(error.contains("1 of 8 files cannot be used") && error.contains("broken.jpg: "), "{error}");

    let outcome = run(&params("skip"), &bench.context(&|| false)).unwrap();
    let split = |blob: &str| levels(&bench.images(&outcome, blob).0);
    let all = [split(blobs::TEST_HR), split(blobs::VALIDATION_HR), split(blobs::TRAIN_HR)];
    assert_eq!(all.each_ref().map(Vec::len), [2, 1, 3]);
    let mut found = all.concat();
    found.sort();
    assert_eq!(found, [0, 1, 2, 3, 4, 5]);
    let said = format!("{:?}", bench.events.lock().unwrap());
    assert!(said.contains("skipped ") && said.contains("1 files are duplicates of another"), "{said}");

    // Other file names and no duplicate: the splits stay the same.
    std::fs::remove_file(at("copy.png")).unwrap();
    std::fs::rename(at("0.png"), at("z.png")).unwrap();
    let again = run(&params("skip"), &bench.context(&|| false)).unwrap();
    assert_eq!(again.outputs, outcome.outputs);
    std::fs::remove_file(at("5.png")).unwrap();
    let error = format!("{:#}", run(&params("skip"), &bench.context(&|| false)).unwrap_err());
    assert!(error.contains("has changed since"), "{error}");
}
