//! Shared caches: folders and S3 buckets.

use super::*;

const STAGES: [&str; 3] = ["images", "pairs", "others"];

/// Returns the states of the stages, all of them `state`.
fn all(state: &str) -> serde_json::Value {
    STAGES.iter().map(|name| (name.to_string(), json!(state))).collect::<serde_json::Map<_, _>>().into()
}

/// Runs srpipe with a shared cache and further environment variables.
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

/// Pushes results to a shared cache and fetches them from it; `more` are environment variables for the server.
fn check_sharing(remote: &str, more: &[(&str, &str)]) {
    let from = Pipeline::small().folder();
    let empty = with_remote(&from, &["run", "p.yaml", "--json"], remote, more);
    assert_eq!(empty.finished()["stages"], all("ran"), "{empty}");
    let push = with_remote(&from, &["push", "p"], remote, more);
    assert!(push.stdout.starts_with("3 results pushed to "), "{push}");
    let again = with_remote(&from, &["push", "p"], remote, more);
    assert!(again.stdout.contains("3 already there"), "{again}");

    let to = Pipeline::small().folder();
    let second = with_remote(&to, &["run", "p.yaml", "--json"], remote, more);
    assert_eq!(second.finished()["stages"], all("cached"), "{second}");
    assert!(second.stdout.contains(&format!("fetched from {remote}")), "{second}");
    assert_eq!(to.srpipe(&["verify"]).code, Some(0));
    // A forced stage runs even if the shared cache has its result.
    let forced = with_remote(&to, &["run", "p.yaml", "--json", "--force", "images"], remote, more);
    assert_eq!(forced.finished()["stages"]["images"], "ran", "{forced}");
}

#[test]
fn a_folder_is_a_shared_cache() {
    let shared = tempfile::tempdir().unwrap();
    check_sharing(shared.path().to_str().unwrap(), &[]);
    // Damaged entries are ignored.
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
    assert!(output.stdout.contains("cannot use the result in the shared cache"), "{output}");
}

/// A server that sends the same response to every connection, whatever the request, and counts connections.
fn server_with_response(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, SeqCst);
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(answer.as_bytes()));
        }
    });
    (address, requests)
}

#[test]
fn an_unavailable_cache_is_tried_once_per_run() {
    for (answer, expected) in [
        (
            "HTTP/1.1 404 x\r\nContent-Length: 32\r\nConnection: close\r\n\r\n<Error><Code>NoSuchBucket</Code>",
            "NoSuchBucket",
        ),
        (
            "HTTP/1.1 400 x\r\nContent-Length: 32\r\nConnection: close\r\n\r\n<Error><Code>ExpiredToken</Code>",
            "ExpiredToken",
        ),
        // The body is truncated.
        ("HTTP/1.1 200 x\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n{", "reading a record"),
        ("nonsense\r\n\r\n", "reading "),
    ] {
        let (endpoint, requests) = server_with_response(answer);
        let folder = Pipeline::small().folder();
        let more = [("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
        let output = with_remote(&folder, &["run", "p.yaml", "--json"], "s3://bucket", &more);
        assert_eq!(output.finished()["stages"], all("ran"), "{output}");
        assert_eq!(output.stdout.matches("cannot use the shared cache").count(), 1, "{output}");
        assert!(output.stdout.contains(expected) && output.stdout.contains("continues without it"), "{output}");
        assert_eq!(requests.load(SeqCst), 1, "{output}");
    }
}

#[test]
fn push_repairs_a_damaged_cache() {
    let folder = Pipeline::small().folder();
    let shared = tempfile::tempdir().unwrap();
    let remote = shared.path().to_str().unwrap();
    folder.run(&[]);
    with_remote(&folder, &["push", "p"], remote, &[]);
    for kind in ["blobs", "actions"] {
        let shard = fs::read_dir(shared.path().join(kind)).unwrap().next().unwrap().unwrap().path();
        let path = fs::read_dir(shard).unwrap().next().unwrap().unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let push = with_remote(&folder, &["push", "p", "--json"], remote, &[]);
    let report: serde_json::Value = serde_json::from_str(&push.stdout).unwrap();
    assert!(report["repaired"].as_u64().unwrap() > 0 && report["pushed"] == 0, "{push}");
    let to = Pipeline::small().folder();
    let second = with_remote(&to, &["run", "p.yaml", "--json"], remote, &[]);
    assert_eq!(second.finished()["stages"], all("cached"), "{second}");
}

#[test]
fn the_cache_can_be_set_in_the_users_settings() {
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
    assert!(code == Some(2) && text.contains("no shared cache is configured"), "{text}");
}

#[test]
fn a_tilde_is_expanded_in_settings_and_reported_in_pipelines() {
    let folder = Pipeline::small().stage("tool", "{kind: command, command: [~/bin/tool], outputs: [o]}").folder();
    fs::create_dir(folder.path().join("srpipe")).unwrap();
    folder.write("srpipe/config.yaml", "remote: ~/cache\n");
    let srpipe = |args: &[&str], remote: Option<&str>| {
        let mut command = folder.command(args);
        command.env("HOME", folder.path()).envs(remote.map(|remote| ("SRPIPE_REMOTE", remote)));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = srpipe(&["run", "p.yaml", "--keep-going"], None);
    assert!(code == Some(1) && text.contains("`~` is not expanded here"), "{text}");
    for (remote, place) in [(None, "cache"), (Some("~/other"), "other")] {
        assert_eq!(srpipe(&["push", "p"], remote).0, Some(0));
        assert!(folder.path().join(place).join("actions").is_dir());
    }
    assert!(!folder.path().join("~").exists());
    for (stage, expected) in [
        ("{kind: fetch, dataset: folder, path: ~/pics}", "`~` is not expanded here"),
        ("{kind: fetch, dataset: folder, path: $HOME/pics}", "`$HOME` is not expanded here"),
        ("{kind: fetch, dataset: cifar10, url: 'file:~/a.tar.gz'}", "`~` is not expanded here"),
        ("{kind: fetch, dataset: cifar10, url: 'file:${DATA}/a.tar.gz'}", "`${…}` is not expanded here"),
    ] {
        folder.write("q.yaml", format!("name: q\nstages:\n  images: {stage}\n"));
        let (code, text) = srpipe(&["run", "q.yaml"], None);
        assert!(code == Some(2) && text.contains(expected), "{stage}: {text}");
    }
}

/// A server process that is killed at the end of a test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Uses Moto (`pip install 'moto[server,s3]'`), a server with the S3 interface. `SRPIPE_TEST_MOTO` is the path of its
/// `moto_server`.
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
        assert_eq!(named, None, "the program in SRPIPE_TEST_MOTO does not start");
        eprintln!("SKIPPED: {moto} is not installed, so caches in S3 are not tested; pip install 'moto[server,s3]'");
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
    check_sharing("s3://bucket/some/prefix", &more);
    let folder = Pipeline::small().folder();
    let missing = with_remote(&folder, &["run", "p.yaml", "--json"], "s3://no-such-bucket", &more);
    assert_eq!(missing.finished()["stages"], all("ran"), "{missing}");
    let push = with_remote(&folder, &["push", "p"], "s3://no-such-bucket", &more);
    assert!(push.code == Some(1) && push.stderr.contains("pushing to s3://no-such-bucket: "), "{push}");
}

#[test]
fn damaged_results_are_reported_and_not_pushed() {
    let folder = Pipeline::small().folder();
    assert_eq!(folder.run(&[]).code, Some(0));
    let blob = fs::canonicalize(folder.runs().join("p/latest/pairs/train_lr.safetensors")).unwrap();
    fs::remove_file(&blob).unwrap();
    let mut push = folder.command(&["push", "p"]);
    let output = push.env("SRPIPE_REMOTE", folder.path().join("cache")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("pairs was not pushed: train_lr.safetensors is missing"), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("2 results pushed"));
}
