//! Lists the pictures in a folder.
//!
//! The planner derives a stage's key from this listing, and the stage lists the folder again when it runs. Both call
//! [`list`], so that they find the same files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use rustix::fs::{Access, access};
use walkdir::{DirEntry, WalkDir};

use crate::config::Broken;
use crate::config::expansion_hint;
use crate::store::{Digest, is_results_folder};

/// File name extensions of the formats that are read, in lower case.
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// File name extensions of picture formats that are not read.
const OTHER_EXTENSIONS: [&str; 30] = [
    "avif", "bmp", "cr2", "cr3", "dds", "dng", "exr", "gif", "hdr", "heic", "heif", "ico", "j2k", "jfif", "jp2", "jpe",
    "jxl", "nef", "orf", "pbm", "pgm", "pnm", "ppm", "psd", "qoi", "raf", "rw2", "svg", "tga", "tif",
];

/// The maximum number of names in a message.
const MAX_NAMES: usize = 5;

/// The pictures in a folder and its subfolders.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Readable files, sorted by path.
    pub files: Vec<PathBuf>,
    /// Unreadable folders and unreadable files that have a picture's name, each with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// What was ignored and why, one message each.
    pub notes: Vec<String>,
}

impl Listing {
    /// Returns the digest of the folder's content, given the digests of [`files`](Self::files). Unreadable entries
    /// count only if they fail the stage, not if they are skipped.
    pub fn content(&self, digests: &[Digest], broken: Broken) -> Digest {
        let fails = !self.unreadable.is_empty() && broken == Broken::Refuse;
        let mut names: Vec<String> = digests.iter().map(Digest::to_string).collect();
        names.extend(fails.then(|| Digest::of(b"what cannot be read").to_string()));
        names.sort_unstable();
        names.dedup();
        Digest::of(names.join("\n").as_bytes())
    }
}

/// Lists the pictures under `folder`. `results` is the `runs` folder that is in use.
///
/// Follows links to folders, but reads each folder once. Ignores hidden files and folders, Synology's `@eaDir`, result
/// folders and links into them, and links that lead back to a parent folder.
pub fn list(folder: &Path, results: Option<&Path>) -> Result<Listing> {
    let shown = folder.display();
    if !folder.is_dir() {
        let what = if folder.exists() { "is not a folder" } else { "does not exist" };
        bail!("{shown} {what}; set `path` to a folder of pictures{}", expansion_hint(folder));
    }
    let mut results = Results::new(folder, results)?;
    let mut listing = Listing::default();
    let mut ignored = Ignored::default();
    let mut read = HashSet::new();
    let mut walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_path_buf();
                if error.loop_ancestor().is_some() {
                    ignored.loops.push(path);
                } else if !path.file_name().is_some_and(is_hidden) {
                    listing.unreadable.extend(unreadable(path, error.io_error()));
                }
                continue;
            }
        };
        let (is_folder, path) = (entry.file_type().is_dir(), entry.path());
        if entry.depth() > 0 && is_hidden(entry.file_name()) {
            if is_folder {
                walk.skip_current_dir();
            }
            if is_folder || is_picture(path) {
                ignored.hidden.push(path.to_path_buf());
            }
        } else if entry.depth() > 0 && results.contains(&entry) {
            if is_folder {
                walk.skip_current_dir();
            }
            ignored.results.push(path.to_path_buf());
        } else if is_folder {
            // Several links can give a folder exponentially many paths.
            let id = entry.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
            if id.is_ok_and(|id| !read.insert(id)) {
                walk.skip_current_dir();
            }
        } else if entry.file_type().is_file() && is_picture(path) {
            match access(path, Access::READ_OK) {
                Ok(()) => listing.files.push(entry.into_path()),
                Err(error) => {
                    listing.unreadable.push((entry.into_path(), std::io::Error::from(error).kind().to_string()))
                }
            }
        } else if let Some(extension) = extension(path).filter(|extension| is_other_format(extension)) {
            *ignored.formats.entry(extension).or_default() += 1;
        }
    }
    listing.notes = ignored.notes(folder);
    if listing.files.is_empty() && listing.unreadable.is_empty() {
        let notes: String = listing.notes.iter().map(|note| format!("; {note}")).collect();
        anyhow::bail!("{shown} contains no files that end in .{}{notes}", EXTENSIONS.join(", ."));
    }
    Ok(listing)
}

fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

fn is_picture(path: &Path) -> bool {
    extension(path).is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn is_other_format(extension: &str) -> bool {
    OTHER_EXTENSIONS.contains(&extension) || extension == "tiff"
}

/// Whether a name is hidden by Unix convention, or is the thumbnail folder of a Synology file server.
fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || name == "@eaDir"
}

/// Returns an unreadable entry with the reason; None for a broken link whose name is not a picture's.
fn unreadable(path: PathBuf, error: Option<&std::io::Error>) -> Option<(PathBuf, String)> {
    let is_link = path.is_symlink();
    if is_link && !is_picture(&path) {
        return None;
    }
    let reason = match error.map(std::io::Error::kind) {
        Some(ErrorKind::NotFound) if is_link => "the link is broken".to_string(),
        Some(kind) => kind.to_string(),
        None => "cannot be read".to_string(),
    };
    Some((path, reason))
}

/// Recognises srpipe's result folders in and around a folder of pictures.
struct Results {
    /// The folder of pictures.
    root: PathBuf,
    /// The `runs` folder in use, unless it contains the pictures.
    own: Option<PathBuf>,
    /// Whether the target folders of links contain results; a cache.
    is_results: HashMap<PathBuf, bool>,
}

impl Results {
    fn new(folder: &Path, own: Option<&Path>) -> Result<Self> {
        let root = folder.canonicalize()?;
        let own = own.and_then(|own| own.canonicalize().ok());
        ensure!(
            own.as_ref() != Some(&root) && !is_results_folder(&root),
            "{} is a folder of srpipe results; choose a folder of pictures",
            folder.display()
        );
        let own = own.filter(|own| !root.starts_with(own));
        Ok(Self { root, own, is_results: HashMap::new() })
    }

    /// Whether an entry is a result folder, or a link into one.
    fn contains(&mut self, entry: &DirEntry) -> bool {
        let path = entry.path();
        if !entry.path_is_symlink() {
            return entry.file_type().is_dir() && (self.is_own(path) || is_results_folder(path));
        }
        let Ok(target) = path.canonicalize() else { return false };
        let folder = if entry.file_type().is_dir() { target } else { target.parent().unwrap_or(&target).to_path_buf() };
        if let Some(&is_results) = self.is_results.get(&folder) {
            return is_results;
        }
        let is_results = |folder: &Path| self.own.as_deref() == Some(folder) || is_results_folder(folder);
        // Nothing is ignored if the result folder also contains the pictures.
        let is_result = folder.ancestors().take_while(|folder| !self.root.starts_with(folder)).any(is_results);
        self.is_results.insert(folder, is_result);
        is_result
    }

    fn is_own(&self, folder: &Path) -> bool {
        let id = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        self.own.as_ref().is_some_and(|own| own.file_name() == folder.file_name() && id(own) == id(folder))
    }
}

/// The entries that a listing ignores.
#[derive(Default)]
struct Ignored {
    hidden: Vec<PathBuf>,
    results: Vec<PathBuf>,
    loops: Vec<PathBuf>,
    /// The number of files per extension, of formats that are not read.
    formats: BTreeMap<String, usize>,
}

impl Ignored {
    fn notes(self, folder: &Path) -> Vec<String> {
        let some = |paths: &[PathBuf]| {
            let shown: Vec<String> = (paths.iter().take(MAX_NAMES))
                .map(|path| path.strip_prefix(folder).unwrap_or(path).display().to_string())
                .collect();
            let more = paths.len().saturating_sub(MAX_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            (!paths.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
        };
        let formats: Vec<String> =
            self.formats.iter().map(|(extension, count)| format!("{count} .{extension}")).collect();
        let notes = [
            some(&self.hidden).map(|names| format!("ignored hidden files and folders: {names}")),
            some(&self.results).map(|names| format!("ignored srpipe results: {names}")),
            some(&self.loops).map(|names| format!("ignored links to a parent folder: {names}")),
            (!formats.is_empty()).then(|| {
                format!(
                    "ignored files in unsupported formats: {}; convert them to PNG, JPEG or WebP to use them",
                    formats.join(", ")
                )
            }),
        ];
        notes.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::Store;

    struct Photos {
        folder: tempfile::TempDir,
    }

    impl Photos {
        /// Creates a file at each of these paths, with its path as content.
        fn new(names: &[&str]) -> Self {
            let photos = Self { folder: tempfile::tempdir().unwrap() };
            names.iter().for_each(|name| photos.add(name));
            photos
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn add(&self, name: &str) {
            fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
            fs::write(self.at(name), name).unwrap();
        }

        fn list(&self) -> Listing {
            list(self.folder.path(), Some(&self.at("runs"))).unwrap()
        }

        #[track_caller]
        fn assert_files(&self, names: &[&str]) -> Listing {
            let listing = self.list();
            assert_eq!(listing.files, names.iter().map(|name| self.at(name)).collect::<Vec<_>>());
            listing
        }
    }

    #[test]
    fn files_are_found_at_any_depth() {
        let photos = Photos::new(&["notes.txt"]);
        let error = |path: &Path| list(path, None).unwrap_err().to_string();
        assert!(error(photos.folder.path()).contains("contains no files that end in .png"));
        ["b/c/x.JPG", "a.png", "z.webp", "png"].iter().for_each(|name| photos.add(name));
        assert_eq!(
            photos.assert_files(&["a.png", "b/c/x.JPG", "z.webp"]),
            Listing { files: photos.list().files, ..Default::default() }
        );
        assert!(error(&photos.at("a.png")).contains("is not a folder"));
    }

    #[test]
    fn hidden_files_and_folders_are_ignored_and_listed() {
        let hidden = ["._a.png", ".thumbnails/a.png", "@eaDir/a.png", "b/.ipynb_checkpoints/a.png", ".DS_Store"];
        let photos = Photos::new(&[&["a.png", "b/b.png"], &hidden[..]].concat());
        let notes = photos.assert_files(&["a.png", "b/b.png"]).notes;
        assert_eq!(notes, ["ignored hidden files and folders: ._a.png, .thumbnails, @eaDir, b/.ipynb_checkpoints"]);
        // The folder itself may be hidden.
        assert_eq!(list(&photos.at(".thumbnails"), None).unwrap().files, [photos.at(".thumbnails/a.png")]);
    }

    #[test]
    fn results_among_pictures_and_links_into_them_are_ignored() {
        let photos = Photos::new(&["a.png"]);
        Store::open(&photos.at("runs")).unwrap();
        Store::open(&photos.at("deep/others")).unwrap();
        ["runs/p/1/plot.png", "deep/others/p/1/plot.png", "deep/b.png", "fake/c.png", "fake/CACHEDIR.TAG"]
            .iter()
            .for_each(|name| photos.add(name));
        symlink(photos.at("runs/p"), photos.at("latest")).unwrap();
        symlink(photos.at("runs/p/1/plot.png"), photos.at("plot.png")).unwrap();
        symlink(photos.at("deep/others/p/1/plot.png"), photos.at("other.png")).unwrap();
        symlink(photos.at("a.png"), photos.at("same.png")).unwrap();
        let files = ["a.png", "deep/b.png", "fake/c.png", "same.png"];
        let notes = photos.assert_files(&files).notes;
        assert_eq!(notes, ["ignored srpipe results: deep/others, latest, other.png, plot.png, runs"]);
        // Inside a result folder, pictures are read: a program may have written them.
        let inside = list(&photos.at("runs/p/1"), Some(&photos.at("runs"))).unwrap();
        assert_eq!(inside.files, [photos.at("runs/p/1/plot.png")]);
        for results in ["runs", "deep/others"] {
            let error = list(&photos.at(results), Some(&photos.at("runs"))).unwrap_err().to_string();
            assert!(error.contains("folder of srpipe results"), "{error}");
        }
    }

    #[test]
    fn broken_links_and_loops_are_ignored() {
        let photos = Photos::new(&["a.png", "b/b.png"]);
        let before = photos.list();
        symlink("/nowhere", photos.at("notes.txt")).unwrap();
        symlink(".hidden.png", photos.at(".gone.png")).unwrap();
        symlink("loop.txt", photos.at("loop.txt")).unwrap();
        assert_eq!(photos.list(), before);
        symlink(".", photos.at("all")).unwrap();
        symlink("..", photos.at("b/up")).unwrap();
        let notes = photos.assert_files(&["a.png", "b/b.png"]).notes;
        assert_eq!(notes, ["ignored links to a parent folder: all, b/up"]);
        symlink("/nowhere.png", photos.at("gone.png")).unwrap();
        symlink("turn.png", photos.at("turn.png")).unwrap();
        let listing = photos.assert_files(&["a.png", "b/b.png"]);
        let unreadable: Vec<PathBuf> = listing.unreadable.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(unreadable, [photos.at("gone.png"), photos.at("turn.png")]);
        assert_eq!(listing.unreadable[0].1, "the link is broken");
        // Unreadable entries count only if they fail the stage.
        let digests = [Digest::of(b"a"), Digest::of(b"b")];
        let content = |listing: &Listing, broken| listing.content(&digests, broken);
        assert_eq!(content(&listing, Broken::Skip), content(&before, Broken::Skip));
        assert_ne!(content(&listing, Broken::Refuse), content(&before, Broken::Refuse));
    }

    /// Twelve folders, each with links to all of them: far too many paths to visit.
    #[test]
    fn a_folder_is_read_once_however_many_links_lead_to_it() {
        let photos = Photos::new(&["a.png"]);
        for i in 0..12 {
            photos.add(&format!("{i:02}/{i}.png"));
            for j in 0..12 {
                symlink(photos.at(&format!("{j:02}")), photos.at(&format!("{i:02}/to{j}"))).unwrap();
            }
        }
        let contents: HashSet<Vec<u8>> = photos.list().files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert_eq!((contents.len(), photos.list().files.len()), (13, 13));
    }

    #[test]
    fn other_formats_are_counted() {
        let photos = Photos::new(&["a.png", "b.TIFF", "c.tif", "d.tif", "e.gif", "f.heic", "g.txt", "h"]);
        let notes = photos.assert_files(&["a.png"]).notes;
        assert!(
            notes[0].starts_with("ignored files in unsupported formats: 1 .gif, 1 .heic, 2 .tif, 1 .tiff; "),
            "{notes:?}"
        );
        let none = Photos::new(&["a.heic"]);
        let error = list(none.folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("no files that end in .png") && error.contains("1 .heic"), "{error}");
    }

    #[test]
    fn the_digest_depends_on_the_content() {
        let digests = ["a", "b", "c"].map(|text| Digest::of(text.as_bytes()));
        let [a, b, c] = digests.clone();
        let content = |digests: &[Digest]| Listing::default().content(digests, Broken::Refuse);
        assert_eq!(content(&digests), content(&[c.clone(), a.clone(), b.clone(), a.clone()]));
        assert_ne!(content(&digests), content(&[a, b]));
    }
}
