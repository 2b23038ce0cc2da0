//! Output files that the user names: pictures, reports, archives, templates.
//!
//! An output file is written to a temporary file in the same folder, which is then renamed. Readers never see a
//! half-written file, a failed command leaves the old content, and other hard links to the old file (backups made with
//! `cp -al`, or the command's own input) keep their content.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::{Builder, NamedTempFile};

/// Permissions of a new file before the umask is applied.
const NEW_FILE: u32 = 0o666;

/// A file that appears at its path when [`finish`](Self::finish) returns. Dropping it before that leaves no file
/// behind.
pub(super) struct OutputFile {
    sink: Sink,
    path: PathBuf,
}

enum Sink {
    /// A temporary file, renamed to the path at the end.
    Sibling(NamedTempFile),
    /// A device or a pipe, such as `/dev/stdout`. Renaming would replace it with a regular file.
    Device(File),
}

impl OutputFile {
    /// Starts writing the file at `path`. An existing file keeps its permissions, and a symbolic link keeps its target;
    /// a new file gets the permissions that the umask allows.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let writing = || format!("writing {}", path.display());
        let (path, permissions) = match fs::metadata(path) {
            Ok(existing) if existing.is_file() => {
                (path.canonicalize().with_context(writing)?, Some(existing.permissions()))
            }
            Ok(existing) if existing.is_dir() => anyhow::bail!("writing {}: it is a folder", path.display()),
            Ok(_) => {
                let file = File::options().write(true).open(path).with_context(writing)?;
                return Ok(Self { sink: Sink::Device(file), path: path.to_path_buf() });
            }
            Err(_) => (path.to_path_buf(), None),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = Builder::new();
        let builder = builder.prefix(".tmp-").permissions(Permissions::from_mode(NEW_FILE));
        let file = builder.tempfile_in(folder).with_context(writing)?;
        if let Some(permissions) = permissions {
            file.as_file().set_permissions(permissions).with_context(writing)?;
        }
        Ok(Self { sink: Sink::Sibling(file), path })
    }

    /// Renames the file to its path. When this returns, the file survives a power failure.
    pub(super) fn finish(self) -> Result<()> {
        let writing = || format!("writing {}", self.path.display());
        match self.sink {
            Sink::Device(_) => Ok(()),
            Sink::Sibling(file) => {
                file.as_file().sync_all().with_context(writing)?;
                file.persist(&self.path).map(drop).map_err(|error| error.error).with_context(writing)
            }
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Sibling(file) => file.write(bytes),
            Sink::Device(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Sibling(file) => file.flush(),
            Sink::Device(file) => file.flush(),
        }
    }
}

/// Writes a file atomically.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    file.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn other_hard_links_keep_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let [backup, path] = ["backup", "file"].map(|name| folder.path().join(name));
        fs::write(&backup, "old").unwrap();
        fs::hard_link(&backup, &path).unwrap();
        write(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&backup).unwrap()), (b"new".to_vec(), b"old".to_vec()));
    }

    #[test]
    fn permissions_follow_the_umask_or_the_file_that_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [plain, new] = ["plain", "new"].map(|name| folder.path().join(name));
        fs::write(&plain, "").unwrap();
        write(&new, b"").unwrap();
        assert_eq!(mode(&new), mode(&plain));
        fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
        write(&new, b"secret").unwrap();
        assert_eq!(mode(&new), 0o600);
    }

    #[test]
    fn a_symbolic_link_keeps_its_target() {
        let folder = tempfile::tempdir().unwrap();
        let [link, target] = ["link", "target"].map(|name| folder.path().join(name));
        fs::write(&target, "old").unwrap();
        symlink(&target, &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    /// Uses a pipe instead of `/dev/null`, which a failing test run as root would replace with a regular file.
    #[test]
    fn special_files_are_written_but_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, link] = ["pipe", "link"].map(|name| folder.path().join(name));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        symlink(&pipe, &link).unwrap();
        for path in [&pipe, &link] {
            let pipe = pipe.clone();
            let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
            write(path, b"through").unwrap();
            assert_eq!(reader.join().unwrap(), b"through");
        }
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo() && link.is_symlink());
    }

    #[test]
    fn an_unfinished_file_leaves_the_old_file_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write(folder.path(), b"").unwrap_err().to_string().contains("it is a folder"));
        assert!(write(&folder.path().join("no/file"), b"").is_err());
    }
}
