//! Atomic writes and other file system operations of the store.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tempfile::{Builder, NamedTempFile};

/// The prefix of temporary files and folders. Readers ignore them, and a crash may leave them behind.
pub const TEMPORARY: &str = ".tmp-";

/// The maximum size of a record. Even those of a pipeline with the maximum number of instances are smaller.
const MAX_RECORD_FILE_BYTES: u64 = 1 << 30;

/// Whether a file survives a power failure. Files always survive the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The file survives once it is written.
    Synced,
    /// The file may be lost: for files that can be recreated, because syncing takes milliseconds.
    Unsynced,
}

/// Creates a temporary file in `folder`, and the folder if necessary. The file is removed when dropped.
pub(super) fn temporary(folder: &Path) -> Result<NamedTempFile> {
    let attempt = || {
        // By default, only the owner can read temporary files; apply the umask instead.
        Builder::new().prefix(TEMPORARY).permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
    };
    let created = match attempt() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            create_folder(folder)?;
            attempt()
        }
        created => created,
    };
    created.with_context(|| format!("creating a file in {}", folder.display()))
}

/// Renames a finished temporary file to `path`, replacing an existing file.
pub(super) fn publish(file: NamedTempFile, path: &Path, durability: Durability) -> Result<()> {
    let context = || format!("writing {}", path.display());
    if durability == Durability::Synced {
        file.as_file().sync_all().with_context(context)?;
    }
    file.persist(path).map_err(|e| e.error).with_context(context)?;
    if durability == Durability::Synced {
        sync_folder(parent_folder(path)).with_context(context)?;
    }
    Ok(())
}

/// Writes a file atomically: if the process is killed, `path` has either its old or its new content.
pub fn write(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let mut file = temporary(parent_folder(path))?;
    file.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
    publish(file, path, durability)
}

/// Writes a file that survives a power failure.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, Durability::Synced)
}

/// Opens a regular file for reading and returns it with its size. Anything else is `InvalidData`: a link could point
/// anywhere, and reading a named pipe could block forever.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = open_regular(path, File::options().read(true))?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Reads a regular file. Anything else is `InvalidData`; see [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, size) = open(path)?;
    let mut bytes = vec![];
    // A sparse file may be larger than the memory.
    let reserved = usize::try_from(size).is_ok_and(|size| bytes.try_reserve_exact(size).is_ok());
    if !reserved {
        return Err(io::Error::new(
            ErrorKind::OutOfMemory,
            format!("the file has {size} bytes, which do not fit into memory"),
        ));
    }
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Like [`read`], for a record such as a JSON or YAML file. A file that is larger than any record is `InvalidData`.
pub fn read_record(path: &Path) -> io::Result<Vec<u8>> {
    let (file, size) = open(path)?;
    let mut bytes = vec![];
    if size <= MAX_RECORD_FILE_BYTES {
        // The file may grow in the meantime.
        file.take(MAX_RECORD_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    }
    let size = size.max(bytes.len() as u64);
    match size <= MAX_RECORD_FILE_BYTES {
        true => Ok(bytes),
        false => {
            let reason = format!("the file has {size} bytes, but a record has at most {MAX_RECORD_FILE_BYTES}");
            Err(io::Error::new(ErrorKind::InvalidData, reason))
        }
    }
}

/// Like [`read_record`], for text.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_record(path)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "the file is not UTF-8 text"))
}

/// Opens one of srpipe's own files for writing. Removes a link, pipe or device at the path instead of following it.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match open_regular(path, options) {
        Err(e) if e.kind() == ErrorKind::InvalidData && !fs::symlink_metadata(path)?.is_dir() => {
            fs::remove_file(path)?;
            open_regular(path, options)
        }
        opened => opened,
    }
}

/// Renames a folder atomically to a temporary name next to it. Returns the new path.
pub(super) fn move_away(folder: &Path) -> Result<PathBuf> {
    let parent = parent_folder(folder);
    let target = Builder::new().prefix(TEMPORARY).tempdir_in(parent);
    let target = target.with_context(|| format!("creating a folder in {}", parent.display()))?.keep();
    // The rename replaces an empty folder.
    fs::rename(folder, &target).with_context(|| format!("removing {}", folder.display()))?;
    Ok(target)
}

/// Removes a folder that was moved away, with its content; does not follow links. A process that opened it under its
/// old name may still create files in it, and a user's program may have left read-only folders.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    const ATTEMPTS: usize = 1000;
    for _ in 0..ATTEMPTS {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(e) if e.kind() == ErrorKind::PermissionDenied => make_writable(folder)?,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            removed => return removed,
        }
    }
    fs::remove_dir_all(folder)
}

/// Gives the owner all permissions on a folder and its subfolders. Fails if there was nothing to change.
fn make_writable(folder: &Path) -> io::Result<()> {
    let mut changed = false;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let mode = fs::symlink_metadata(&folder)?.permissions().mode();
        if mode & 0o700 != 0o700 {
            fs::set_permissions(&folder, Permissions::from_mode(mode | 0o700))?;
            changed = true;
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    if changed { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
}

/// Removes temporary files that killed processes left in a folder. No other process may be writing there.
pub(super) fn remove_temporaries(folder: &Path) {
    temporaries(folder).iter().for_each(|path| {
        // Leftovers only take up space; `gc` reports what it cannot remove.
        let _ = if is_folder(path) { remove_folder(path) } else { fs::remove_file(path) };
    });
}

/// Returns the temporary files and folders in a folder.
pub fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let is_temporary =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()));
    entries(folder).into_iter().filter(is_temporary).collect()
}

/// Returns the paths in a folder in any order; empty if it is not a folder.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = is_folder(folder).then(|| fs::read_dir(folder).ok()).flatten();
    entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Whether `path` is a folder, not a link to one.
pub fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Opens a log in a work folder for appending. Creates both, and retries if `gc` removes the folder in between.
pub fn open_log(path: &Path) -> Result<File> {
    const ATTEMPTS: usize = 1000;
    let folder = parent_folder(path);
    for _ in 0..ATTEMPTS {
        if let Some(link) = [parent_folder(folder), folder].into_iter().find(|folder| folder.is_symlink()) {
            bail!("{} is a link, which srpipe does not follow: remove it", link.display());
        }
        create_folder(folder)?;
        match open_own(path, File::options().create(true).append(true)) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            opened => return opened.with_context(|| format!("opening {}", path.display())),
        }
    }
    bail!("opening {}: its folder was removed repeatedly", path.display())
}

fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let invalid = |reason| Err(io::Error::new(ErrorKind::InvalidData, reason));
    // Without NONBLOCK, opening a pipe would block until the other end is open.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match options.custom_flags(flags.cast_signed()).open(path) {
        Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return invalid("the file is a link"),
        // A pipe without a reader.
        Err(e) if e.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => return invalid("not a regular file"),
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { invalid("not a regular file") }
}

/// Creates a folder and its missing parents, durably.
pub fn create_folder(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = parent_folder(path);
    create_folder(parent)?;
    match fs::create_dir(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        // Another process has just removed it.
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.symlink_metadata().is_err() => {
            return create_folder(path);
        }
        Err(e) => Err(e),
        Ok(()) => sync_folder(parent),
    }
    .with_context(|| format!("creating the folder {}", path.display()))
}

/// Returns the parent folder of a path, as a path that can be opened.
pub fn parent_folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Syncs a folder, if the file system supports it.
fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Fails unless `name` is a plain file name: not a path, not hidden and not special.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        bail!("{what} {name:?} is not a valid file name: it must not be empty, start with a dot or contain a slash");
    }
    Ok(())
}

/// Returns the host name, for messages and records.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the last `bytes` bytes of a file as text; None if it cannot be read.
pub fn read_tail(path: &Path, bytes: u64) -> Option<String> {
    let (mut file, length) = open(path).ok()?;
    file.seek(SeekFrom::Start(length.saturating_sub(bytes))).ok()?;
    let mut end = vec![];
    // The file may grow in the meantime.
    file.take(bytes).read_to_end(&mut end).ok()?;
    Some(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_without_leaving_temporary_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        for durability in [Durability::Synced, Durability::Unsynced] {
            for content in [&b"a longer content"[..], b"short"] {
                write(&path, content, durability).unwrap();
                assert_eq!(fs::read(&path).unwrap(), content);
            }
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn errors_contain_the_operation_and_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = format!("{:#}", write(&file.join("inside"), b"", Durability::Synced).unwrap_err());
        assert!(error.starts_with(&format!("creating a file in {}: ", file.display())), "{error}");
        let error = format!("{:#}", create_folder(&file.join("inside")).unwrap_err());
        assert!(error.starts_with(&format!("creating the folder {}", file.display())), "{error}");
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), b"1234").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(open(&at("file")).unwrap().1, 4);
        for refused in [at("link"), at("pipe"), folder.path().to_path_buf()] {
            assert_eq!(open(&refused).unwrap_err().kind(), ErrorKind::InvalidData, "{}", refused.display());
        }
        assert_eq!(open(&at("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn files_that_are_larger_than_any_record_are_not_read_into_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        fs::write(&path, b"{}").unwrap();
        assert_eq!(read_record(&path).unwrap(), b"{}");
        // Sparse: takes no space on the disk.
        File::options().write(true).open(&path).unwrap().set_len(200 << 30).unwrap();
        let error = read_record(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(error.to_string(), "the file has 214748364800 bytes, but a record has at most 1073741824");
        assert!(read_text(&path).is_err());
    }

    #[test]
    fn own_files_replace_links_and_pipes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("outside"), b"precious").unwrap();
        std::os::unix::fs::symlink("outside", at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for name in ["link", "pipe", "new"] {
            let mut file = open_own(&at(name), File::options().create(true).append(true)).unwrap();
            file.write_all(b"own").unwrap();
            assert_eq!(read(&at(name)).unwrap(), b"own", "{name}");
        }
        assert_eq!(read(&at("outside")).unwrap(), b"precious");
        fs::create_dir(at("folder")).unwrap();
        assert!(open_own(&at("folder"), File::options().create(true).append(true)).is_err());
    }

    #[test]
    fn paths_are_not_valid_file_names() {
        for good in ["a", "train_hr.safetensors", "baseline[base_channels=16,seed=0]", "ä b"] {
            check_name("blob", good).unwrap();
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "/a", "../a", "a\\b", "a\0"] {
            assert!(check_name("blob", bad).is_err(), "{bad:?}");
        }
    }
}
