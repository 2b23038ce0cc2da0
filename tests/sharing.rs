//! Results that go from one to another: archives of runs, and caches that are shared.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::{Folder, Output, Pipeline, sealed, wait_until};
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
        assert!(to.run(&[]).stdout.starts_with("nothing to do"));
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
        let text = sealed(&text.replace(from, to));
        with(&|entries| entries[index].1 = text.clone())
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
        ("nothing", vec![], "this is not an archive written by"),
        ("noise", b"this is no archive, and long enough for a header".repeat(20), "this is not an archive written by"),
        ("a link", link, "not a regular file"),
        ("zeros in gzip", bomb, "is truncated"),
        ("no head", archive(&good[1..]), "not an srpipe export"),
        ("another schema", replace(0, "\"schema\":1", "\"schema\":2"), "reads schema 1"),
        ("a path upwards", with(&|e| e.push(("../evil".into(), vec![]))), "not part of an srpipe export"),
        ("an absolute path", with(&|e| e.push(("/tmp/evil".into(), vec![]))), "not part of an srpipe export"),
        ("an unknown entry", with(&|e| e.push(("blobs/zz".into(), vec![]))), "not part of an srpipe export"),
        ("a changed blob", with(&|e| e[blob].1[9] ^= 1), "is damaged"),
        ("a long blob", with(&|e| e[blob].1.push(0)), "bytes, but its record states"),
        ("a missing blob", with(&|e| drop(e.remove(blob))), "is missing"),
        (
            "an unreferenced blob",
            with(&|e| e.push((format!("blobs/{}", "0".repeat(64)), vec![]))),
            "which no preceding record refers to",
        ),
        ("another preimage", replace(action, "\"format\": 1", "\"format\": 9"), "hashes to another key"),
        ("a stage upwards", replace(run, "\"name\": \"pairs\"", "\"name\": \"../../x\""), "is not a valid file name"),
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

/// Returns what `runs` and `status` list, and the folders in `runs`.
fn listed_runs(folder: &Folder) -> (serde_json::Value, serde_json::Value, Vec<String>) {
    let json = |args: &[&str], field: &str| {
        let output = folder.srpipe(args);
        serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))[field]
            .take()
    };
    let entries = fs::read_dir(folder.runs()).into_iter().flatten().map(|entry| entry.unwrap());
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let names = names.filter(|name| name != "store" && name != "CACHEDIR.TAG").collect();
    (json(&["runs", "--json"], "runs"), json(&["status", "--json"], "pipelines"), names)
}

#[test]
fn importing_a_run_is_atomic() {
    let from = Pipeline::small().folder();
    from.run(&[]);
    from.srpipe(&["export", "p", "good.tar"]);
    let good = entries(&from.path().join("good.tar"));
    let run = good.iter().position(|(name, _)| name == "run/run.json").unwrap();
    let text = String::from_utf8(good[run].1.clone()).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let id = record["id"].as_str().unwrap();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        let mut entries = good.clone();
        entries[run].1 = sealed(&text.replacen(from, to, 1));
        archive(&entries)
    };
    let stage = |to: &str| changed("\"name\": \"pairs\"", &format!("\"name\": \"{to}\""));
    let pipeline = |to: &str| changed("\"pipeline\": \"p\"", &format!("\"pipeline\": \"{to}\""));
    let long = "x".repeat(300);
    for (what, bytes) in [
        ("a run called latest", changed(id, "latest")),
        ("a malformed run id", changed(id, "20200101")),
        ("a hidden run folder", changed(id, ".tmp-x")),
        ("a stage called run.json", stage("run.json")),
        ("a stage called RUN.JSON", stage("RUN.JSON")),
        ("a stage called pipeline.yaml", stage("pipeline.yaml")),
        ("a stage called report.html", stage("report.html")),
        ("a stage of 300 characters", stage(&long)),
        ("a hidden stage", stage(".lock")),
        ("two stages of one name", stage("images")),
        ("a pipeline called store", pipeline("store")),
        ("a pipeline called latest", pipeline("latest")),
        ("a pipeline of 300 characters", pipeline(&long)),
        ("a pipeline called ..", pipeline("..")),
    ] {
        let to = Pipeline::small().folder();
        to.write("bad.tar", bytes);
        let output = to.srpipe(&["import", "bad.tar"]);
        assert_eq!(output.code, Some(1), "{what}: {output}");
        assert_eq!(listed_runs(&to), (json!([]), json!([]), vec![]), "{what}");
        // The failed import does not obstruct a later run.
        assert_eq!(to.run(&["--only", "images"]).code, Some(0), "{what}");
    }
    // A folder in the way is not a run, and is kept.
    let to = Pipeline::small().folder();
    fs::create_dir_all(to.runs().join("p").join(id).join("mine")).unwrap();
    fs::copy(from.path().join("good.tar"), to.path().join("good.tar")).unwrap();
    assert_eq!(to.srpipe(&["import", "good.tar"]).code, Some(1));
    assert_eq!(fs::read_dir(to.runs().join("p")).unwrap().count(), 1);
    assert_eq!(listed_runs(&to).0, json!([]));
}

#[test]
fn an_imported_run_has_ended_and_its_stage_names_may_be_similar() {
    let from = Pipeline::small().folder();
    from.run(&[]);
    from.srpipe(&["export", "p", "good.tar"]);
    let mut entries = entries(&from.path().join("good.tar"));
    let run = entries.iter().position(|(name, _)| name == "run/run.json").unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&entries[run].1).unwrap();
    record["state"] = json!("running");
    record["executor"] = json!("slurm");
    let stages = record["stages"].as_array_mut().unwrap();
    stages[0]["state"] = json!("running");
    stages[0]["job"] = json!({"id": "7", "node": "n1"});
    stages[1]["state"] = json!("pending");
    let names = ["a", "A", "\u{e9}", "e\u{301}"];
    for name in names {
        let mut stage = stages[2].clone();
        stage["name"] = json!(name);
        stages.push(stage);
    }
    record.as_object_mut().unwrap().remove("sha256");
    entries[run].1 = sealed(&record.to_string());
    let to = Pipeline::small().folder();
    to.write("left.tar", archive(&entries));
    assert_eq!(to.srpipe(&["import", "left.tar"]).code, Some(0));
    let status = to.srpipe(&["status", "p", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["run"]["state"], "interrupted", "{status}");
    let states: Vec<&str> = status["stages"].as_array().unwrap().iter().map(|s| s["state"].as_str().unwrap()).collect();
    assert_eq!(states[..2], ["interrupted", "skipped"]);
    assert_eq!(status["stages"][0]["job"], json!(null));
    let folder = to.runs().join("p/latest");
    for name in names {
        assert!(folder.join(name).join("train_lr.safetensors").is_file(), "{name}");
    }
    assert_eq!(to.srpipe(&["gc"]).code, Some(0));
    assert_eq!(to.run(&[]).code, Some(0));
}

/// Returns a tar header of any kind and size, followed by `content`.
fn raw(name: &str, kind: u8, size: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkflag = [kind];
    old.size[..size.len()].copy_from_slice(size.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// As [`sealed`], for text that may no longer be JSON.
fn resealed(text: &str) -> Vec<u8> {
    if text.contains(",\n\"sha256\": \"") { sealed(text) } else { text.as_bytes().to_vec() }
}

/// Returns malicious archives, made from a real export with a deterministic generator.
fn malicious_archives(good: &[Entry], count: usize) -> Vec<(String, Vec<u8>)> {
    let whole = archive(good);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    // The offsets of the headers.
    let mut starts = vec![];
    let mut at = 0;
    for (_, bytes) in good {
        starts.push(at);
        at += 512 + bytes.len().next_multiple_of(512);
    }
    let values = [
        "18446744073709551615",
        "-1",
        "1e99",
        "null",
        "[]",
        "\"\"",
        "\"../x\"",
        "\"\\u0000\"",
        "\"latest\"",
        "\"store\"",
        "\"run.json\"",
        "\"images\"",
    ];
    let mut all = vec![];
    for i in 0..count {
        let mut bytes = whole.clone();
        let what = match i % 10 {
            0 => {
                let at = random(bytes.len());
                bytes[at] ^= 1 << random(8);
                format!("a bit of byte {at}")
            }
            1 | 2 => {
                // An arbitrary header with a correct checksum.
                let start = starts[random(starts.len())];
                let at = start + random(512);
                bytes[at] = [0, b'0', b'7', 0xff, 0x80, b'/', b'L', b'x', b'S', b'2'][random(10)];
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[start..start + 512]);
                header.set_cksum();
                bytes[start..start + 512].copy_from_slice(header.as_bytes());
                format!("byte {at} of a header")
            }
            3 => {
                bytes.truncate(random(bytes.len()));
                format!("cut to {}", bytes.len())
            }
            4 => {
                // A value in the JSON of a record.
                let mut entries = good.to_vec();
                let of_json: Vec<usize> = (0..good.len()).filter(|&i| good[i].0.ends_with(".json")).collect();
                // Names are the most promising target: every other archive changes a name of the run, with each value
                // in turn.
                let (turn, is_name) = (i / 20, (i / 10) % 2 == 0);
                let of_run = good.iter().position(|(name, _)| name == "run/run.json").unwrap();
                let entry = if is_name { of_run } else { of_json[random(of_json.len())] };
                let text = String::from_utf8(good[entry].1.clone()).unwrap();
                let keys: &[&str] =
                    if is_name { &["\"name\": ", "\"id\": ", "\"pipeline\": ", "\"name\": "] } else { &[": "] };
                let key = keys[random(keys.len())];
                let colons: Vec<usize> = text.match_indices(key).map(|(at, key)| at + key.len()).collect();
                let (from, value) = match colons.is_empty() {
                    true => (0, "{"),
                    false if is_name => (colons[random(colons.len())], values[turn % values.len()]),
                    false => (colons[random(colons.len())], values[random(values.len())]),
                };
                let end = text[from..].find([',', '\n']).map_or(text.len(), |end| from + end);
                let changed = format!("{}{value}{}", &text[..from], &text[end..]);
                // An attacker can compute checksums.
                entries[entry].1 = if random(4) == 0 { changed.into_bytes() } else { resealed(&changed) };
                bytes = archive(&entries);
                format!("{value} at {from} of {}", good[entry].0)
            }
            5 => {
                let (from, to) = (random(good.len()), random(good.len()));
                let mut entries = good.to_vec();
                let entry = entries[from].clone();
                entries.insert(to, entry);
                bytes = archive(&entries);
                format!("{} twice", good[from].0)
            }
            6 => {
                let kind = b"LKxgS12345673AVMN"[random(17)];
                let size = ["00000000000", "77777777777", "00000000777", "\u{7f}7777777", "99999999999"][random(5)];
                let header = raw("././@LongLink", kind, size, &vec![b'x'; random(2000)]);
                let start = starts[random(starts.len())];
                bytes.splice(start..start, header);
                format!("a header of kind {} and size {size} at {start}", kind as char)
            }
            7 => {
                let mut entries = good.to_vec();
                let entry = random(entries.len());
                let names =
                    ["../../x", "/tmp/x", "blobs/../x", "actions/x.json", "run/../run/run.json", "", "run/run.json/"];
                entries[entry].0 = names[random(names.len())].into();
                bytes = archive(&entries);
                format!("{} called {:?}", good[entry].0, entries[entry].0)
            }
            8 => {
                let mut entries = good.to_vec();
                let entry = random(entries.len());
                let removed = entries.remove(entry).0;
                if random(2) == 0 {
                    let (a, b) = (random(entries.len()), random(entries.len()));
                    entries.swap(a, b);
                }
                bytes = archive(&entries);
                format!("without {removed}")
            }
            _ => {
                let at = random(bytes.len());
                let mut packed = gzip(&bytes);
                let place = random(packed.len());
                packed[place] ^= 1 << random(8);
                bytes = packed;
                format!("a bit of the compressed byte {place} ({at})")
            }
        };
        all.push((what, if random(8) == 0 { gzip(&bytes) } else { bytes }));
    }
    all
}

/// `SRPIPE_TEST_ARCHIVES` sets the number of archives.
#[test]
fn malicious_archives_do_no_harm() {
    let count = std::env::var("SRPIPE_TEST_ARCHIVES").map_or(400, |count| count.parse().unwrap());
    let from = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 1, validation: 1, test: 1}")
        .stage("pairs", "{kind: degrade, input: images}")
        .folder();
    from.run(&[]);
    from.srpipe(&["export", "p", "good.tar"]);
    let good = entries(&from.path().join("good.tar"));
    let to = Pipeline::small().folder();
    // Prefer a folder in memory, because thousands of files are synced.
    let memory = Path::new("/dev/shm");
    let runs = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let runs = runs.path().join("runs");
    let mut imported = 0;
    for (i, (what, bytes)) in malicious_archives(&good, count).into_iter().enumerate() {
        to.write("bad.tar", bytes);
        let _ = fs::remove_dir_all(&runs);
        // A gigabyte of address space, far more than a genuine archive needs.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 1000000; exec \"$0\" import bad.tar", env!("CARGO_BIN_EXE_srpipe")]);
        let output = command.current_dir(to.path()).env("SRPIPE_RUNS", &runs).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("panicked") && !text.contains("memory allocation"), "{i}: {what}: {text}");
        match output.status.code() {
            // Some changes have no effect: a file's time, a bit of padding.
            Some(0) => imported += 1,
            Some(1) => {
                assert_eq!(entries_on_disk(&runs), 0, "{i}: {what}: {text}");
            }
            other => panic!("{i}: {what}: exit code {other:?}: {text}"),
        }
        assert!(!to.path().join("x").exists() && !Path::new("/tmp/x").exists(), "{i}: {what}");
    }
    assert!(imported < count / 3, "{imported} of {count} were imported");
}

/// Counts the entries next to the store, including hidden ones.
fn entries_on_disk(runs: &Path) -> usize {
    let entries = fs::read_dir(runs).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    entries.filter(|name| name != "store" && name != "CACHEDIR.TAG").count()
}

#[test]
fn importing_an_archive_takes_bounded_memory() {
    let from = Pipeline::small().folder();
    from.run(&[]);
    from.srpipe(&["export", "p", "good.tar"]);
    let good = entries(&from.path().join("good.tar"));
    let size: usize = 600 << 20;
    let octal = format!("{size:011o}");
    let gzip = |head: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gzip.write_all(head).unwrap();
        (0..size >> 20).for_each(|_| gzip.write_all(&vec![b' '; 1 << 20]).unwrap());
        gzip.finish().unwrap()
    };
    let start = archive(&good[..1]);
    let start = &start[..start.len() - 1024];
    for (what, bytes) in [
        ("a long name", gzip(&raw("././@LongLink", b'L', &octal, &[]))),
        ("a long link", gzip(&raw("././@LongLink", b'K', &octal, &[]))),
        ("an extended header", gzip(&raw("pax", b'x', &octal, &[]))),
        ("a global header", gzip(&raw("pax", b'g', &octal, &[]))),
        ("a head", gzip(&raw("srpipe-export.json", b'0', &octal, &[]))),
        ("a record", gzip(&[start, &raw("run/run.json", b'0', &octal, &[])].concat())),
        ("a pipeline", gzip(&[start, &raw("run/pipeline.yaml", b'0', &octal, &[])].concat())),
    ] {
        let to = Pipeline::small().folder();
        to.write("big.tar.gz", bytes);
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 400000; exec \"$0\" import big.tar.gz", env!("CARGO_BIN_EXE_srpipe")]);
        let output = command.current_dir(to.path()).env_remove("SRPIPE_RUNS").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && text.contains("are accepted"), "{what}: {text}");
    }
}

#[test]
fn permissions_of_shared_files_follow_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Pipeline::small().folder();
    let shared = folder.path().join("shared");
    for (umask, file, blob) in [("077", 0o600, 0o400), ("027", 0o640, 0o440), ("022", 0o644, 0o444)] {
        let _ = fs::remove_dir_all(&shared);
        // A file that is there is replaced by one with its permissions.
        let _ = fs::remove_file(folder.path().join("x.tar"));
        let script =
            format!("umask {umask}; \"$0\" run p.yaml && \"$0\" export p x.tar && SRPIPE_REMOTE=shared \"$0\" push p");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_srpipe")]).current_dir(folder.path());
        let output = command.env_remove("SRPIPE_RUNS").env("XDG_CONFIG_HOME", folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("x.tar")), file, "{umask}");
        for kind in ["blobs", "actions"] {
            for shard in fs::read_dir(shared.join(kind)).unwrap() {
                for entry in fs::read_dir(shard.unwrap().path()).unwrap() {
                    assert_eq!(mode(&entry.unwrap().path()), blob, "{umask}");
                }
            }
        }
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
    assert!(again.stdout.contains("3 already there"), "{again}");

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
    let told: serde_json::Value = serde_json::from_str(&push.stdout).unwrap();
    assert!(told["repaired"].as_u64().unwrap() > 0 && told["pushed"] == 0, "{push}");
    let to = Pipeline::small().folder();
    let taken = with_remote(&to, &["run", "p.yaml", "--json"], remote, &[]);
    assert_eq!(taken.finished()["stages"], all("cached"), "{taken}");
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
    assert!(code == Some(2) && text.contains("no shared cache is configured"), "{text}");
}

#[test]
fn a_tilde_is_the_home_folder_in_settings_and_is_pointed_at_in_pipelines() {
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

#[test]
fn damaged_results_are_not_pushed_and_named() {
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
