use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { member_bytes: 1000, total_bytes: 100_000, members: 10 };

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns a tar member with any path, type and declared size, including invalid ones.
fn member(path: &str, kind: EntryType, declared: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(declared);
    if !kind.is_file() {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    member(path, EntryType::Regular, content.len() as u64, content)
}

fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

fn read(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    read_members(bytes, &["a.bin", "b.bin"], BOUNDS, |_, bytes| Ok(bytes))
}

fn read_tar(members: &[Vec<u8>]) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    read(&gzip(&tar(members)))
}

#[test]
fn requested_members_are_read_and_others_ignored() {
    let members = [
        member("x", EntryType::Directory, 0, b""),
        file("x/b.bin", b"second"),
        file("x/readme.txt", &[7; 5000]),
        file("x/not-a.bin", b"other"),
        member("x/link", EntryType::Symlink, 0, b""),
        file("x/a.bin", b"first"),
    ];
    let found = read_tar(&members).unwrap();
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [("a.bin".to_string(), b"first".to_vec()), ("b.bin".to_string(), b"second".to_vec())]
    );
}

#[test]
fn links_and_paths_that_lead_out_are_ignored() {
    let b = file("b.bin", b"b");
    for bad in [
        member("a.bin", EntryType::Symlink, 0, b""),
        member("a.bin", EntryType::Link, 0, b""),
        member("a.bin", EntryType::Fifo, 0, b""),
        member("a.bin", EntryType::Directory, 0, b""),
        file("../a.bin", b"a"),
        file("x/../../a.bin", b"a"),
        file("/tmp/a.bin", b"a"),
    ] {
        match read_tar(&[bad.clone(), b.clone()]) {
            Err(ArchiveError::Missing { members, ignored }) => {
                assert_eq!((members, ignored.len()), (vec!["a.bin".to_string()], 1));
            }
            other => panic!("{other:?}"),
        }
        // A valid file with the same name is still found.
        assert_eq!(read_tar(&[bad, b.clone(), file("a.bin", b"right")]).unwrap()["a.bin"], b"right");
    }
}

#[test]
fn missing_and_duplicate_members_are_named() {
    let error = read_tar(&[file("a.bin", b"a")]).unwrap_err();
    assert_eq!(error.to_string(), "the archive does not contain `b.bin`");
    let error = read_tar(&[file("a.bin", b"a"), file("x/a.bin", b"a"), file("b.bin", b"")]).unwrap_err();
    assert!(matches!(error, ArchiveError::Duplicate(name) if name == "a.bin"));
}

#[test]
fn sizes_are_checked_before_memory_is_allocated() {
    let error = read_tar(&[member("a.bin", EntryType::Regular, u64::MAX / 4, b"a")]).unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge { limit: 1000, .. }), "{error}");
    // A member that was not requested is inflated only up to the bound. An extension, which would have to be kept in
    // memory, is refused before it is read.
    for (kind, expected) in [
        (EntryType::Regular, "decompresses to more than 100000 bytes"),
        (EntryType::GNULongLink, "at most 65536 are accepted"),
        (EntryType::XGlobalHeader, "at most 65536 are accepted"),
        (EntryType::GNULongName, "at most 65536 are accepted"),
        (EntryType::XHeader, "at most 65536 are accepted"),
    ] {
        let error = read_tar(&[member("big", kind, 50_000_000, &vec![0; 50_000_000])]).unwrap_err();
        let message = format!("{:#}", anyhow::Error::from(error));
        assert!(message.contains(expected), "{message}");
    }
    let zeros = gzip(&[tar(&[file("a.bin", b"a"), file("b.bin", b"b")]), vec![0; 50_000_000]].concat());
    let message = format!("{:#}", anyhow::Error::from(read(&zeros).unwrap_err()));
    // The reason appears once.
    assert_eq!(message.matches("decompresses to more than").count(), 1, "{message}");
    let many: Vec<_> = (0..11).map(|i| file(&format!("{i}"), b"")).collect();
    assert!(matches!(read_tar(&many), Err(ArchiveError::TooManyMembers(10))));
}

#[test]
fn long_names_are_read() {
    let folder = "x/".repeat(60);
    let name = format!("{folder}a.bin");
    let long = member("././@LongLink", EntryType::GNULongName, name.len() as u64 + 1, format!("{name}\0").as_bytes());
    let record = format!(" path={name}\n");
    let record = format!("{}{record}", record.len() + 3);
    let pax = member("pax", EntryType::XHeader, record.len() as u64, record.as_bytes());
    for extension in [long, pax] {
        let members = [extension, file("x/short", b"first"), file("b.bin", b"second")];
        assert_eq!(read_tar(&members).unwrap()["a.bin"], b"first");
    }
    let many = vec![member("pax", EntryType::XGlobalHeader, 0, b""); 9];
    assert!(format!("{:#}", anyhow::Error::from(read_tar(&many).unwrap_err())).contains("extended headers"));
    let sizes = member("pax", EntryType::XHeader, 9, b"9 size=9\n");
    let error = read_tar(&[sizes, file("a.bin", b"a"), file("b.bin", b"b")]).unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(error)).contains("two different sizes"));
}

#[test]
fn damage_is_detected() {
    let whole = tar(&[file("a.bin", &[1; 600]), file("b.bin", &[2; 600])]);
    let packed = gzip(&whole);
    assert!(read(&packed).is_ok());
    for cut in 0..packed.len() {
        let error = read(&packed[..cut]).unwrap_err();
        // An empty stream is an archive without members; any other truncation is detected.
        assert!(cut == 0 || matches!(error, ArchiveError::Unreadable(_)), "cut at {cut}: {error}");
    }
    assert!(matches!(read(&[&packed[..], b"more"].concat()), Err(ArchiveError::Unreadable(_))));
    assert!(matches!(read(&gzip(&[&whole[..], b"more"].concat())), Err(ArchiveError::TrailingData)));
    assert!(matches!(read(&gzip(&whole[..700])), Err(ArchiveError::Unreadable(_))));
    let mut checksum = packed.clone();
    let at = packed.len() - 6;
    checksum[at] ^= 1;
    assert!(matches!(read(&checksum), Err(ArchiveError::Unreadable(_))));
    for text in ["", "<html>404</html>"] {
        assert!(read(text.as_bytes()).is_err());
    }
}

#[test]
fn errors_in_content_name_the_member() {
    let bytes = gzip(&tar(&[file("x/a.bin", b"a")]));
    let error = read_members(&bytes[..], &["a.bin"], BOUNDS, |_, _| Err::<(), _>("bad".to_string())).unwrap_err();
    assert_eq!(error.to_string(), "`a.bin` in the archive: bad");
}

proptest! {
    /// Random bytes are an error and never cause a panic.
    #[test]
    fn random_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&bytes).is_err());
        prop_assert!(read(&gzip(&bytes)).is_err());
    }

    #[test]
    fn damaged_headers_do_not_panic(at in 0usize..512, value: u8) {
        let mut bytes = tar(&[file("a.bin", b"a"), file("b.bin", b"b")]);
        bytes[at] = value;
        let _ = read(&gzip(&bytes));
    }
}
