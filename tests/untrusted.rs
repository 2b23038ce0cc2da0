//! Secrets in URLs, which are never displayed or stored, and untrusted text of programs, archives and servers.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};

use common::{Folder, Output, Pipeline, archive, sealed, sha256};

/// The secret in the password and the query of every URL here; the base64 encoding of `user:SECRET` begins with
/// `dXNlcjpTRUNSRV`.
const SECRET: &str = "SECRET";
const BASIC: &str = "Basic dXNlcjpTRUNSRVQ=";

static ARCHIVE: LazyLock<Vec<u8>> = LazyLock::new(|| archive(2));

/// Starts a server that sends the archive to clients with the password or the signature. Returns its address and the
/// number of requests that it refused.
fn server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let head = lines.collect::<Vec<_>>().join("\n");
            let is_allowed = head.contains(BASIC) || head.lines().next().is_some_and(|line| line.contains(SECRET));
            let (status, body): (_, &[u8]) = match is_allowed {
                true if !head.contains("gone") => (200, &ARCHIVE),
                true => (404, b"there is no such file"),
                false => (403, b"no"),
            };
            count.fetch_add(usize::from(status == 403), SeqCst);
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    (address, refused)
}

/// Returns every file under a folder with the secret in its content or its name.
fn leaks(folder: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut unvisited = vec![folder.to_path_buf()];
    while let Some(path) = unvisited.pop() {
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(SECRET)) {
            found.push(path.display().to_string());
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            unvisited.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if metadata.is_file() {
            let bytes = fs::read(&path).unwrap();
            if bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn assert_no_leaks(folder: &Folder, outputs: &[Output]) {
    for output in outputs {
        assert!(!output.stdout.contains(SECRET) && !output.stderr.contains(SECRET), "{output}");
    }
    assert_eq!(leaks(&folder.runs()), [""; 0]);
}

/// Returns the YAML of a `fetch` stage.
fn fetch(url: &str, mirrors: &str) -> String {
    let digest = sha256(&ARCHIVE);
    format!("{{kind: fetch, dataset: cifar10, url: '{url}', mirrors: [{mirrors}], sha256: {digest}, validation: 2}}")
}

#[test]
fn secrets_in_urls_are_sent_but_neither_displayed_nor_stored() {
    let (host, refused) = server();
    let signed = format!("http://{host}/a?X-Amz-Signature={SECRET}&part=1");
    let gone = format!("http://user:{SECRET}@{host}/gone");
    let folder = Pipeline::new()
        .stage("password", &fetch(&format!("http://user:{SECRET}@{host}/a"), ""))
        // Use another key, so that the archive is downloaded again.
        .stage("signed", &fetch(&gone, &format!("'{signed}'")).replace("validation: 2", "validation: 3"))
        .folder();
    let mut outputs = vec![folder.run(&[])];
    assert_eq!(outputs[0].code, Some(0), "{}", outputs[0]);
    assert!(outputs[0].stderr.contains("http://***@127.0.0.1"), "{}", outputs[0]);
    // Keys do not contain URLs, so another URL has no effect.
    let other = format!("stages.password.url=http://user:{SECRET}2@{host}/b");
    let again = folder.run(&["--set", &other]);
    assert!(again.stdout.starts_with("nothing to do"), "{again}");
    outputs.push(again);
    // Errors contain the URL, and the command line is recorded.
    let limit = ["--set", "stages.password.limit.train=1"];
    let set = format!("stages.password.url=http://user:{SECRET}@{host}/gone?sig={SECRET}");
    for more in [&[][..], &["--json"]] {
        let failed = folder.run(&[&["--set", &set], &limit[..], more].concat());
        assert_eq!(failed.code, Some(1), "{failed}");
        outputs.push(failed);
    }
    // The name of a swept instance contains the value.
    let sweep = format!("stages.password.url=http://user:{SECRET}1@{host}/a,http://u:{SECRET}2@{host}/a");
    outputs.push(folder.run(&["--sweep", &sweep]));
    assert_eq!(refused.load(SeqCst), 0, "the secrets were sent");
    let wrong = format!("stages.password.url=ftp://user:{}{SECRET}@{host}/a", "x".repeat(70));
    let malformed = format!("stages.password.url=http://user:{SECRET}/a@{host}/a");
    let commands: &[&[&str]] = &[
        &["plan", "p.yaml", "--set", &malformed],
        &["check", "p.yaml", "--set", &wrong],
        &["check", "p.yaml", "--json", "--set", &wrong],
        &["check", "p.yaml", "--set", "stages.password.urll=1"],
        &["check", "p.yaml", "--set", "stages.password={kind: fetch, url: 3}"],
        &["plan", "p.yaml", "--json", "--set", &other],
        &["plan", "p.yaml"],
        &["why", "p.yaml", "password", "--json"],
        &["graph", "p.yaml", "--json"],
        &["status", "p.yaml", "--json"],
        &["status", "p"],
        &["runs", "--all", "--json"],
        &["runs", "--all"],
        &["logs", "password", "--json"],
        &["logs", "signed"],
        &["diff", "p", "p", "--json"],
        &["report", "p"],
        &["export", "p", "p.tar"],
    ];
    outputs.extend(commands.iter().map(|args| folder.srpipe(args)));
    assert_no_leaks(&folder, &outputs);
    let exported = fs::read(folder.path().join("p.tar")).unwrap_or_default();
    assert!(!exported.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    // Running the resolved pipeline reports the missing secret.
    let resolved = folder.runs().join("p/latest/pipeline.yaml");
    let resolved = folder.srpipe(&["run", resolved.to_str().unwrap(), "--runs-dir", "others"]);
    assert!(resolved.code == Some(2) && resolved.stderr.contains("Write the whole address"), "{resolved}");
}

/// Earlier versions stored secrets in the files of runs.
#[test]
fn secrets_of_older_runs_are_not_displayed() {
    let folder = Pipeline::small().folder();
    folder.run(&[]);
    let run = folder.runs().join("p/latest");
    let read = |file: &str| fs::read_to_string(run.join(file)).unwrap();
    let (record, yaml) = (read("run.json"), read("pipeline.yaml"));
    assert!(record.contains("\"p.yaml\"\n  ],") && yaml.contains("train: 8"), "{record}{yaml}");
    let with_secret = "\"p.yaml\", \"--set\", \"stages.c.url=http://u:SECRET@h/\"\n  ],";
    fs::write(run.join("run.json"), sealed(&record.replacen("\"p.yaml\"\n  ],", with_secret, 1))).unwrap();
    // Files of that version have no checksum.
    let yaml = yaml.split("\n# sha256: ").next().unwrap();
    let yaml = yaml.replacen("train: 8", "train: 8\n    url: http://u:SECRET@h/?sig=SECRET", 1);
    fs::write(run.join("pipeline.yaml"), yaml).unwrap();
    for args in [
        &["runs", "--all"][..],
        &["runs", "--all", "--json"],
        &["status", "p", "--json"],
        &["diff", "p", "p"],
        &["export", "p", "p.tar"],
    ] {
        let output = folder.srpipe(args);
        assert!(output.code == Some(0) && !output.stdout.contains(SECRET), "{output}");
    }
    let exported = fs::read(folder.path().join("p.tar")).unwrap();
    assert!(!exported.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
}

#[test]
fn slurm_jobs_get_secrets_through_the_environment() {
    let (host, refused) = server();
    let folder = Pipeline::new().stage("images", &fetch(&format!("http://user:{SECRET}@{host}/a"), "")).folder();
    let stub = folder.path().join("stub");
    fs::create_dir_all(stub.join("jobs")).unwrap();
    let srpipe = |args: &[&str]| {
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slurm/stub");
        let path = format!("{scripts}:{}", std::env::var("PATH").unwrap());
        output(folder.command(args).env("PATH", path).env("STUB", &stub))
    };
    let ran = srpipe(&["run", "p.yaml", "--executor", "slurm", "--json"]);
    assert_eq!(ran.finished()["stages"]["images"], "ran", "{ran}");
    assert_eq!(refused.load(SeqCst), 0);
    assert!(fs::read_dir(folder.runs().join("p/latest/.slurm")).is_ok());
    assert_no_leaks(&folder, &[ran]);
}

/// Runs a command until it exits.
fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), signal: None, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Whether a string has no sequences that move the cursor, set the title or reverse the text direction.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}'))
}

/// Hostile output, in escapes of `printf`: a title, colours, an 8-bit control sequence, a right-to-left override.
const HOSTILE: &str = r"\033]0;T\007\033[31mred\033[2J\302\2332J\342\200\256txt\r\010";

#[test]
fn text_of_programs_cannot_control_the_terminal() {
    let stage =
        format!("{{kind: command, command: [sh, -c, 'printf \"{HOSTILE}\\n\"; CODE'], outputs: [o], metrics: o}}");
    let good = stage.replace("CODE", r#"printf "{\"\\\\u001b[31mx\\\\u009b2J\\\\u202e\": 1}" >outputs/o"#);
    let folder = Pipeline::new().stage("good", &good).stage("bad", &stage.replace("CODE", "exit 3")).folder();
    let ran = folder.run(&[]);
    assert_eq!(ran.code, Some(1), "{ran}");
    let metrics = fs::read_to_string(folder.runs().join("p/latest/run.json")).unwrap();
    assert!(metrics.contains("\\u001b[31mx"), "the name is hostile: {metrics}");
    let mut outputs = vec![ran];
    for args in [
        &["logs", "good"][..],
        &["logs", "bad"],
        &["runs", "--all"],
        &["status", "p"],
        &["status", "p.yaml"],
        &["diff", "p", "p"],
        &["why", "p.yaml", "bad"],
        &["report", "p"],
    ] {
        outputs.push(folder.srpipe(args));
    }
    for output in &outputs {
        assert!(is_plain(&output.stdout) && is_plain(&output.stderr), "{:?}", (&output.stdout, &output.stderr));
    }
    assert!(outputs[1].stdout.contains("␛]0;T␇") && outputs[3].stdout.contains("␛[31mx"), "{}", outputs[3]);
    // Machine-readable output has the original text, escaped as JSON.
    for args in [
        &["runs", "--all", "--json"][..],
        &["status", "p", "--json"],
        &["logs", "good", "--json"],
        &["run", "p.yaml", "--json"],
    ] {
        let output = folder.srpipe(args);
        assert!(is_plain(&output.stdout), "{:?}", output.stdout);
        let values: Vec<serde_json::Value> =
            serde_json::Deserializer::from_str(&output.stdout).into_iter().collect::<Result<_, _>>().unwrap();
        assert!(!values.is_empty());
    }
    let runs: serde_json::Value = serde_json::from_str(&folder.srpipe(&["runs", "--json"]).stdout).unwrap();
    assert_eq!(runs["runs"][0]["metrics"]["good.\u{1b}[31mx\u{9b}2J\u{202e}"], 1.0, "{runs}");
    let report = fs::read_to_string(folder.runs().join("p/latest/report.html")).unwrap();
    assert!(!report.contains('\u{1b}') && !report.contains("<b>"));
}

#[test]
fn text_of_archives_and_records_cannot_control_the_terminal() {
    let folder = Pipeline::small().folder();
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..8].copy_from_slice(b"\x1b[31mred");
    header.as_old_mut().cksum = *b"zzzzzzzz";
    folder.write("e.tar", [header.as_bytes().as_slice(), &[0; 1024]].concat());
    let import = folder.srpipe(&["import", "e.tar"]);
    assert!(import.code == Some(1) && is_plain(&import.stderr) && import.stderr.contains("␛[31mred"), "{import}");
    // Host and node names come from the records of runs.
    folder.run(&[]);
    let path = folder.runs().join("p/latest/run.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"host\": \"", "\"host\": \"\\u001b]0;T\\u0007");
    fs::write(&path, sealed(&text.replace("\"error\": null", "\"error\": \"\\u001b[2J\""))).unwrap();
    for args in [&["runs", "--all"][..], &["status", "p"], &["report", "p"], &["diff", "p", "p"]] {
        let output = folder.srpipe(args);
        assert!(is_plain(&output.stdout) && is_plain(&output.stderr), "{:?}", (&output.stdout, &output.stderr));
    }
}

#[test]
fn long_lines_in_a_log_excerpt_are_truncated() {
    let stage = "{kind: command, command: [sh, -c, 'head -c 3000000 /dev/zero | tr \"\\0\" m; exit 3'], outputs: [o]}";
    let folder = Pipeline::new().stage("c", stage).folder();
    let failed = folder.run(&[]);
    assert!(failed.code == Some(1) && failed.stderr.len() < 2000, "{} bytes", failed.stderr.len());
    assert!(failed.stderr.contains("mmm…") && failed.stderr.contains("srpipe logs"), "{failed}");
    assert!(folder.srpipe(&["logs", "c"]).stdout.len() >= 3_000_000);
}
