use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::pipeline::params::Limits;
use crate::stages::testing::Bench;

/// An archive of `records` images a batch; image i is grey of level i, counted through the training batches; the test
/// images are of level 200 and more.
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
    FetchParams::Cifar10(Cifar10Params { url: Some(url.to_string()), mirrors: vec![], sha256, validation: 2, limit })
}

fn levels(images: &Images) -> Vec<u8> {
    (0..images.count).map(|i| images.image(i)[0]).collect()
}

/// Where [`archive`] of 2 images a batch lies, its address as `file:`, and its digest.
fn archive_file(bench: &Bench) -> (PathBuf, String, String) {
    let path = bench.folder.path().join("archive.tar.gz");
    std::fs::write(&path, archive(2)).unwrap();
    let sha256 = download::file_sha256(&path).unwrap();
    let url = format!("file:{}", path.display());
    (path, url, sha256)
}

#[test]
fn a_local_archive_is_split() {
    let bench = Bench::new();
    let (_, url, sha256) = archive_file(&bench);
    for sha256 in [None, Some(sha256.to_uppercase())] {
        let outcome = run(&params(&url, sha256.as_deref()), &bench.context(&|| false)).unwrap();
        assert_eq!(levels(&bench.images(&outcome, blobs::TRAIN_HR).0), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(levels(&bench.images(&outcome, blobs::VALIDATION_HR).0), [8, 9]);
        assert_eq!(levels(&bench.images(&outcome, blobs::TEST_HR).0), [200]);
        assert_eq!(outcome.metrics.values().copied().collect::<Vec<_>>(), [1.0, 7.0, 2.0]);
    }
}

#[test]
fn a_wrong_digest_a_missing_file_and_a_broken_archive_are_named() {
    let bench = Bench::new();
    let (path, url, _) = archive_file(&bench);
    let error =
        |sha256: Option<&str>| format!("{:#}", run(&params(&url, sha256), &bench.context(&|| false)).unwrap_err());
    assert!(error(Some(&"00".repeat(32))).contains("correct `sha256`"));
    std::fs::write(&path, &archive(2)[..300]).unwrap();
    let broken = error(None);
    let (doing, cause) = broken.split_once(": the archive cannot be read (").unwrap();
    assert!(doing.starts_with("reading the archive ") && doing.ends_with("archive.tar.gz"), "{broken}");
    // The cause is told, once.
    let (advice, cause) = cause.split_once("): ").unwrap();
    assert!(advice.contains("cut off") && !cause.is_empty() && broken.matches(cause).count() == 1, "{broken}");
    std::fs::remove_file(&path).unwrap();
    assert!(error(None).contains("archive.tar.gz"));
}

/// A server that sends `body` as often as it is asked, with `status`.
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
fn a_downloaded_archive_gives_the_same_blobs_and_leaves_nothing() {
    let bench = Bench::new();
    let (_, url, sha256) = archive_file(&bench);
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
fn a_failed_download_says_what_was_tried_and_what_to_do() {
    let bench = Bench::new();
    let (first, mirror) = (serve(404, vec![]), serve(403, vec![]));
    let FetchParams::Cifar10(mut params) = params(&first, Some(&"00".repeat(32))) else { unreachable!() };
    params.mirrors = vec![mirror.clone()];
    let error = run(&FetchParams::Cifar10(params), &bench.context(&|| false)).unwrap_err().to_string();
    for part in [format!("{first}: HTTP status 404"), format!("{mirror}: HTTP status 403"), "`url: file:PATH`".into()] {
        assert!(error.contains(&part), "{error}");
    }
    assert!(!error.contains("is kept"), "nothing has arrived: {error}");
}

#[test]
fn what_has_arrived_is_kept_only_where_it_may_be_right() {
    let bench = Bench::new();
    let error = |address: &str| {
        let params = params(address, Some(&"00".repeat(32)));
        run(&params, &bench.context(&|| false)).unwrap_err().to_string()
    };
    let part = bench.folder.path().join("work/archive.part");
    let wrong = error(&serve(200, archive(2)));
    assert!(wrong.contains("it sent a file of SHA-256") && !wrong.contains("is kept"), "{wrong}");
    assert!(!part.exists());
    std::fs::write(&part, "the beginning").unwrap();
    let gone = error(&serve(404, vec![]));
    assert!(gone.contains("run again (what has arrived is kept)"), "{gone}");
    assert!(part.exists());
}

#[test]
fn interruptions_are_told_apart_from_failures() {
    let bench = Bench::new();
    let (_, url, sha256) = archive_file(&bench);
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
