//! Results that go from one to another: archives of runs, and caches that are shared.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Folder, Output, Pipeline, wait_until};
use serde_json::json;

const ALL_CACHED: [&str; 3] = ["images", "pairs", "others"];

fn all(state: &str) -> serde_json::Value {
    ALL_CACHED.iter().map(|name| (name.to_string(), json!(state))).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_run_goes_into_a_file_and_comes_out_of_it() {
    for name in ["run.tar", "run.tar.gz"] {
        let from = Pipeline::small().folder();
        from.run(&[]);
        let export = from.srpipe(&["export", "p", name]);
        assert_eq!(export.code, Some(0), "{export}");
        assert!(export.stdout.contains("3 results in "), "{export}");
        let to = Pipeline::small().folder();
        fs::copy(from.path().join(name), to.path().join(name)).unwrap();
        let import = to.srpipe(&["import", name]);
        assert_eq!(import.code, Some(0), "{import}");
        assert!(to.runs().join("p/latest/pairs/test_lr.safetensors").is_file());
        assert!(to.run(&[]).stdout.starts_with("everything is known"));
        assert_eq!(to.srpipe(&["verify"]).code, Some(0));
        // Once more is no harm.
        assert_eq!(to.srpipe(&["import", name]).code, Some(0));
        assert_eq!(to.srpipe(&["status", "p"]).code, Some(0));
    }
    let folder = Pipeline::small().folder();
    assert_eq!(folder.srpipe(&["export", "p", "x.tar"]).code, Some(2));
    assert_eq!(folder.srpipe(&["import", "none.tar"]).code, Some(2));
}

/// The name and the content of a file in an archive.
type Entry = (String, Vec<u8>);

/// The entries of an export, in order.
fn entries(archive: &Path) -> Vec<Entry> {
    let mut tar = tar::Archive::new(fs::File::open(archive).unwrap());
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_string(), bytes)
    });
    entries.collect()
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // As somebody with bad intentions would: the library refuses such names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn hostile_archives_are_refused() {
    let from = Pipeline::small().folder();
    from.run(&[]);
    from.srpipe(&["export", "p", "good.tar"]);
    let good = entries(&from.path().join("good.tar"));
    let with = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut changed = good.clone();
        change(&mut changed);
        archive(&changed)
    };
    let first = |prefix: &str| good.iter().position(|(name, _)| name.starts_with(prefix)).unwrap();
    let (action, blob, run) = (first("actions/"), first("blobs/"), first("run/run.json"));
    let replace = |index: usize, from: &str, to: &str| {
        let text = String::from_utf8(good[index].1.clone()).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        let text = text.replace(from, to);
        with(&|entries| entries[index].1 = text.clone().into_bytes())
    };
    let link = {
        let mut tar = tar::Builder::new(vec![]);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "srpipe-export.json", "/etc/passwd").unwrap();
        tar.into_inner().unwrap()
    };
    let bomb = {
        let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
        gzip.write_all(&archive(&good[..1])).unwrap();
        gzip.write_all(&vec![0; 30_000_000]).unwrap();
        gzip.finish().unwrap()
    };
    let cases: [(&str, Vec<u8>, &str); 16] = [
        ("nothing", vec![], "this is no archive"),
        ("noise", b"this is no archive, and long enough for a header".repeat(20), "this is no archive, such as"),
        ("a link", link, "no plain file"),
        ("zeros in gzip", bomb, "ends too early"),
        ("no head", archive(&good[1..]), "not an export of srpipe"),
        ("another schema", replace(0, "\"schema\":1", "\"schema\":2"), "reads schema 1"),
        ("a path upwards", with(&|e| e.push(("../evil".into(), vec![]))), "no export of srpipe"),
        ("an absolute path", with(&|e| e.push(("/tmp/evil".into(), vec![]))), "no export of srpipe"),
        ("an unknown entry", with(&|e| e.push(("blobs/zz".into(), vec![]))), "no export of srpipe"),
        ("a changed blob", with(&|e| e[blob].1[9] ^= 1), "is damaged"),
        ("a long blob", with(&|e| e[blob].1.push(0)), "bytes long"),
        ("a missing blob", with(&|e| drop(e.remove(blob))), "is missing"),
        (
            "a blob of nobody",
            with(&|e| e.push((format!("blobs/{}", "0".repeat(64)), vec![]))),
            "no record before it names",
        ),
        ("another preimage", replace(action, "\"format\": 1", "\"format\": 9"), "belongs to another key"),
        (
            "a stage upwards",
            replace(run, "\"name\": \"pairs\"", "\"name\": \"../../x\""),
            "cannot be the name of a file",
        ),
        (
            "an odd pipeline",
            replace(run, "\"pipeline\": \"p\"", "\"pipeline\": \"p\\u001b[31m\""),
            "control characters",
        ),
    ];
    for (what, bytes, expected) in cases {
        let to = Pipeline::small().folder();
        to.write("bad.tar", bytes);
        let output = to.srpipe(&["import", "bad.tar"]);
        assert_eq!(output.code, Some(1), "{what}: {output}");
        assert!(output.stderr.contains(expected) && !output.stderr.contains("panicked"), "{what}: {output}");
        assert!(!to.runs().join("p").exists(), "{what}");
        assert!(!to.path().join("evil").exists() && !to.path().join("runs/evil").exists(), "{what}");
    }
    for cut in (0..archive(&good).len()).step_by(9973) {
        let to = Pipeline::small().folder();
        to.write("cut.tar", &archive(&good)[..cut]);
        let output = to.srpipe(&["import", "cut.tar"]);
        assert_eq!(output.code, Some(1), "cut to {cut} bytes: {output}");
    }
}

fn with_remote(folder: &Folder, args: &[&str], remote: &str, more: &[(&str, &str)]) -> Output {
    let mut command = folder.command(args);
    command.env("SRPIPE_REMOTE", remote).envs(more.iter().copied());
    let output = command.output().unwrap();
    Output {
        code: output.status.code(),
        signal: None,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Pushes to a shared cache and takes from it, with what its server needs to know.
fn shared_through(remote: &str, more: &[(&str, &str)]) {
    let from = Pipeline::small().folder();
    let empty = with_remote(&from, &["run", "p.yaml", "--json"], remote, more);
    assert_eq!(empty.finished()["stages"], all("ran"), "{empty}");
    let push = with_remote(&from, &["push", "p"], remote, more);
    assert!(push.stdout.starts_with("3 results pushed to "), "{push}");
    let again = with_remote(&from, &["push", "p"], remote, more);
    assert!(again.stdout.contains("3 there already"), "{again}");

    let to = Pipeline::small().folder();
    let taken = with_remote(&to, &["run", "p.yaml", "--json"], remote, more);
    assert_eq!(taken.finished()["stages"], all("cached"), "{taken}");
    assert!(taken.stdout.contains(&format!("taken from {remote}")), "{taken}");
    assert_eq!(to.srpipe(&["verify"]).code, Some(0));
    // Forced, a stage is computed.
    let forced = with_remote(&to, &["run", "p.yaml", "--json", "--force", "images"], remote, more);
    assert_eq!(forced.finished()["stages"]["images"], "ran", "{forced}");
}

#[test]
fn a_folder_is_a_shared_cache() {
    let shared = tempfile::tempdir().unwrap();
    shared_through(shared.path().to_str().unwrap(), &[]);
    // Damaged, it is of no help, and of no harm either.
    for shard in fs::read_dir(shared.path().join("blobs")).unwrap() {
        for blob in fs::read_dir(shard.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            fs::remove_file(&path).unwrap();
            fs::write(&path, b"damaged").unwrap();
        }
    }
    let to = Pipeline::small().folder();
    let output = with_remote(&to, &["run", "p.yaml", "--json"], shared.path().to_str().unwrap(), &[]);
    assert_eq!(output.finished()["stages"], all("ran"), "{output}");
    assert!(output.stdout.contains("does not help"), "{output}");
}

#[test]
fn the_settings_of_the_user_name_the_cache() {
    let (shared, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = Pipeline::small().folder();
    fs::create_dir(home.path().join("srpipe")).unwrap();
    let settings = home.path().join("srpipe/config.yaml");
    fs::write(&settings, format!("remote: {}\n", shared.path().display())).unwrap();
    let srpipe = |args: &[&str]| {
        let output = folder.command(args).env("XDG_CONFIG_HOME", home.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(srpipe(&["run", "p.yaml"]).0, Some(0));
    assert_eq!(srpipe(&["push", "p"]).0, Some(0));
    assert!(shared.path().join("actions").is_dir());
    fs::write(&settings, "remot: x\n").unwrap();
    let (code, text) = srpipe(&["push", "p"]);
    assert!(code == Some(2) && text.contains("config.yaml: ") && text.contains("remot"), "{text}");
    fs::remove_file(&settings).unwrap();
    let (code, text) = srpipe(&["push", "p"]);
    assert!(code == Some(2) && text.contains("there is no shared cache"), "{text}");
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Moto (`pip install 'moto[server,s3]'`) is a server that speaks S3. `SRPIPE_TEST_MOTO` names its `moto_server`.
#[test]
fn a_bucket_is_a_shared_cache() {
    let named = std::env::var("SRPIPE_TEST_MOTO").ok();
    let moto = named.clone().unwrap_or_else(|| "moto_server".into());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Command::new(&moto)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        assert_eq!(named, None, "SRPIPE_TEST_MOTO names no program that starts");
        eprintln!("SKIPPED: there is no {moto}, so caches in S3 were not tested; pip install 'moto[server,s3]'");
        return;
    };
    let _server = Server(child);
    let endpoint = format!("http://127.0.0.1:{port}");
    wait_until("the server answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request =
        format!("PUT /bucket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let more = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ];
    shared_through("s3://bucket/some/prefix", &more);
    let folder = Pipeline::small().folder();
    let missing = with_remote(&folder, &["run", "p.yaml", "--json"], "s3://no-such-bucket", &more);
    assert_eq!(missing.finished()["stages"], all("ran"), "{missing}");
    let push = with_remote(&folder, &["push", "p"], "s3://no-such-bucket", &more);
    assert!(push.code == Some(1) && push.stderr.contains("pushing to s3://no-such-bucket: "), "{push}");
}
