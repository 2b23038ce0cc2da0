//! Files that are there whole or not at all, and what every part of the store asks of the file system.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tempfile::{Builder, NamedTempFile};

/// How the names of temporary files and folders begin; readers pass over them, and a crash may leave them.
pub const TEMPORARY: &str = ".tmp-";

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

/// Gives a finished temporary file its name, replacing what has it; durable when this returns.
pub fn publish(file: NamedTempFile, path: &Path) -> Result<()> {
    let context = || format!("writing {}", path.display());
    file.as_file().sync_all().with_context(context)?;
    file.persist(path).map_err(|e| e.error).with_context(context)?;
    sync_folder(path.parent().unwrap_or(Path::new("."))).with_context(context)
}

/// Writes a whole file: after a crash at any moment `path` has its old content or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = temporary(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
    publish(file, path)
}

/// Makes a folder and those above it, durably.
pub fn create_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).with_context(|| format!("creating the folder {}", path.display()))?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        sync_folder(parent).with_context(|| format!("creating the folder {}", path.display()))?;
    }
    Ok(())
}

/// Makes the names in a folder durable, where the file system can.
pub fn sync_folder(path: &Path) -> io::Result<()> {
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
