//! Malicious archives: importing them fails, does no harm, and needs bounded memory.

use super::*;

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
        (
            "noise",
            b"this is not an archive, but long enough for a header".repeat(20),
            "this is not an archive written by",
        ),
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

/// Returns a tar header of any kind and size, followed by `content`.
fn raw_entry(name: &str, kind: u8, size: &str, content: &[u8]) -> Vec<u8> {
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

/// Like [`sealed`], for text that may no longer be JSON.
fn resealed(text: &str) -> Vec<u8> {
    if text.contains(",\n\"sha256\": \"") { sealed(text) } else { text.as_bytes().to_vec() }
}

/// Returns malicious archives with a description each. A deterministic generator alters a real export.
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
                let header = raw_entry("././@LongLink", kind, size, &vec![b'x'; random(2000)]);
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
                let at_packed = random(packed.len());
                packed[at_packed] ^= 1 << random(8);
                bytes = packed;
                format!("a bit of the compressed byte {at_packed} ({at})")
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
    // Prefer a folder in memory, because thousands of files are synced to disk.
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
                assert_eq!(count_entries(&runs), 0, "{i}: {what}: {text}");
            }
            other => panic!("{i}: {what}: exit code {other:?}: {text}"),
        }
        assert!(!to.path().join("x").exists() && !Path::new("/tmp/x").exists(), "{i}: {what}");
    }
    assert!(imported < count / 3, "{imported} of {count} were imported");
}

/// Counts the entries next to the store, including hidden ones.
fn count_entries(runs: &Path) -> usize {
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
        ("a long name", gzip(&raw_entry("././@LongLink", b'L', &octal, &[]))),
        ("a long link", gzip(&raw_entry("././@LongLink", b'K', &octal, &[]))),
        ("an extended header", gzip(&raw_entry("pax", b'x', &octal, &[]))),
        ("a global header", gzip(&raw_entry("pax", b'g', &octal, &[]))),
        ("a head", gzip(&raw_entry("srpipe-export.json", b'0', &octal, &[]))),
        ("a record", gzip(&[start, &raw_entry("run/run.json", b'0', &octal, &[])].concat())),
        ("a pipeline", gzip(&[start, &raw_entry("run/pipeline.yaml", b'0', &octal, &[])].concat())),
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
