//! Files that are there whole or not at all, and what every part of the store asks of the file system.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tempfile::{Builder, NamedTempFile};

/// How the names of temporary files and folders begin; readers pass over them, and a crash may leave them.
pub const TEMPORARY: &str = ".tmp-";

/// What of a file survives, if the machine loses power. That of a process loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// All of it, from when it was written.
    Synced,
    /// Perhaps nothing: for what can be done without, as syncing takes milliseconds.
    Unsynced,
}

/// A temporary file in `folder`, which is made where it is not there; gone when dropped.
pub fn temporary(folder: &Path) -> Result<NamedTempFile> {
    let attempt = || {
        // `tempfile` makes files for their owner alone; these become shared ones, as far as the umask lets them.
        Builder::new().prefix(TEMPORARY).permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
    };
    let made = match attempt() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            create_folder(folder)?;
            attempt()
        }
        made => made,
    };
    made.with_context(|| format!("creating a file in {}", folder.display()))
}

/// Gives a finished temporary file its name, replacing what has it.
pub fn publish(file: NamedTempFile, path: &Path, durability: Durability) -> Result<()> {
    let context = || format!("writing {}", path.display());
    if durability == Durability::Synced {
        file.as_file().sync_all().with_context(context)?;
    }
    file.persist(path).map_err(|e| e.error).with_context(context)?;
    if durability == Durability::Synced {
        sync_folder(folder_of(path)).with_context(context)?;
    }
    Ok(())
}

/// Writes a whole file: whenever the process dies, `path` has its old content or the new one.
pub fn write(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let mut file = temporary(folder_of(path))?;
    file.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
    publish(file, path, durability)
}

/// Opens a file to read it, with its size. What is not a regular file is refused as invalid data, links too: they could
/// lead anywhere.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    // Without NONBLOCK, opening a pipe waits for somebody to write to it.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match File::options().read(true).custom_flags(flags.cast_signed()).open(path) {
        Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is a link"));
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata.len()))
    } else {
        Err(io::Error::new(ErrorKind::InvalidData, "it is no regular file"))
    }
}

/// Makes a folder and those above it, durably.
pub fn create_folder(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = folder_of(path);
    create_folder(parent)?;
    match fs::create_dir(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        // It was there a moment ago; whoever cleaned it up is done with it.
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.symlink_metadata().is_err() => {
            return create_folder(path);
        }
        Err(e) => Err(e),
        Ok(()) => sync_folder(parent),
    }
    .with_context(|| format!("creating the folder {}", path.display()))
}

/// The folder that a path lies in, as something that can be opened.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Makes the names in a folder durable, where the file system can.
fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Refuses what is not the plain name of a file: a path, a hidden or a special name.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        bail!("{what} {name:?} cannot be the name of a file: it may not be empty, begin with a dot or hold a slash");
    }
    Ok(())
}

/// This machine's name, for messages and records.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
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
    fn errors_name_the_path_and_what_was_done() {
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
    fn names_are_no_paths() {
        for good in ["a", "train_hr.safetensors", "baseline[base_channels=16,seed=0]", "ä b"] {
            check_name("blob", good).unwrap();
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "/a", "../a", "a\\b", "a\0"] {
            assert!(check_name("blob", bad).is_err(), "{bad:?}");
        }
    }
}
