//! Computes the digests of the external files that stages read.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::{Cifar10Params, FetchParams, FolderParams, InputError, StageParams, expansion_hint};
use crate::data::cifar::{self, Source};
use crate::data::folder;
use crate::plan::{Plan, PlannedStage, Sources};
use crate::store::{Digest, Store, hash_file};

/// Returns the digests of all external content: those pinned in the pipeline file, and those of local files.
pub(super) fn sources(plan: &Plan, store: Option<&Store>) -> Result<Sources> {
    // Several stages can read the same file.
    let mut hashed: HashMap<PathBuf, Digest> = HashMap::new();
    let mut sources = Sources::new();
    for PlannedStage { name, base, params, .. } in &plan.stages {
        let input_error = |error: anyhow::Error| anyhow::Error::from(InputError(format!("stage {name}: {error:#}")));
        let one = |role: &str, digest| BTreeMap::from([(role.to_string(), digest)]);
        let found = match params {
            StageParams::Fetch(FetchParams::Cifar10(params)) => {
                one("archive", archive(params, base, store, &mut hashed)?)
            }
            StageParams::Fetch(FetchParams::Folder(params)) => {
                one("images", folder_content(params, store).map_err(input_error)?)
            }
            StageParams::Command(params) if !params.files.is_empty() => {
                let mut digests = BTreeMap::new();
                for file in &params.files {
                    let digest = match hashed.get(Path::new(file)) {
                        Some(digest) => digest.clone(),
                        None => hash_command_file(Path::new(file), base, store)?,
                    };
                    hashed.insert(file.into(), digest.clone());
                    digests.insert(format!("files.{file}"), digest);
                }
                digests
            }
            StageParams::Fetch(FetchParams::Synthetic(_) | FetchParams::Maps(_))
            | StageParams::Command(_)
            | StageParams::Degrade(_)
            | StageParams::Train(_)
            | StageParams::Sample(_)
            | StageParams::Select(_)
            | StageParams::Compare(_) => continue,
        };
        sources.insert(name.clone(), found);
    }
    Ok(sources)
}

/// Returns the digest of the pictures in a folder, as the stage will compute it.
fn folder_content(params: &FolderParams, store: Option<&Store>) -> Result<Digest> {
    let listing = folder::list(Path::new(&params.path), store.map(Store::runs_dir))?;
    let digests = match store {
        Some(store) => store.hash_files_cached(&listing.files)?,
        None => {
            let digest = |file: &PathBuf| hash_file(file).with_context(|| format!("reading {}", file.display()));
            listing.files.iter().map(digest).collect::<Result<_>>()?
        }
    };
    Ok(listing.content(&digests, params.broken))
}

/// Returns the digest of a CIFAR-10 archive. `hashed` contains the digests of files that other stages read.
fn archive(
    params: &Cifar10Params,
    stage: &str,
    store: Option<&Store>,
    hashed: &mut HashMap<PathBuf, Digest>,
) -> Result<Digest> {
    let input_error = |error: String| InputError(format!("stage {stage}: {error}"));
    let pinned = |text: &str| text.parse::<Digest>().map_err(|e| input_error(format!("stages.{stage}.sha256: {e}")));
    match cifar::source(params).map_err(|e| input_error(format!("{e:#}")))? {
        Source::Web { sha256, .. } => Ok(pinned(&sha256)?),
        Source::File { path, sha256 } => {
            let digest = match hashed.get(&path) {
                Some(digest) => digest.clone(),
                None => hash_archive(&path, stage, store)?,
            };
            if let Some(sha256) = sha256
                && pinned(&sha256)? != digest
            {
                return Err(input_error(format!(
                    "{path} has the SHA-256\n  {digest}, but stages.{stage}.sha256 is\n  {sha256}.\n\
                     Get the file again, or correct the field",
                    path = path.display()
                ))
                .into());
            }
            hashed.insert(path, digest.clone());
            Ok(digest)
        }
    }
}

/// Returns the digest of a file that a command reads.
fn hash_command_file(path: &Path, stage: &str, store: Option<&Store>) -> Result<Digest> {
    let shown = path.display();
    if !path.is_file() {
        let what = if path.exists() { "is not a file" } else { "does not exist" };
        let folder = std::env::current_dir().map(|folder| format!(" in {}", folder.display())).unwrap_or_default();
        return Err(InputError(format!(
            "stage {stage}: stages.{stage}.files: {shown} {what}{folder}. Paths are relative to the folder that srpipe \
             is started in{}",
            expansion_hint(path)
        ))
        .into());
    }
    let digest = match store {
        Some(store) => store.hash_file_cached(path),
        None => hash_file(path).map_err(Into::into),
    };
    digest.map_err(|e| InputError(format!("stage {stage}: stages.{stage}.files: reading {shown}: {e:#}")).into())
}

/// Returns the digest of a local CIFAR-10 archive.
fn hash_archive(path: &Path, stage: &str, store: Option<&Store>) -> Result<Digest> {
    let shown = path.display();
    if !path.is_file() {
        let place = match std::path::absolute(path) {
            Ok(absolute) if absolute != path => format!("{shown} (that is {})", absolute.display()),
            _ => shown.to_string(),
        };
        let what = if path.exists() { "is not a file" } else { "does not exist" };
        return Err(InputError(format!(
            "stage {stage}: {place} {what}. Put the CIFAR-10 binary archive there, name another file in \
             stages.{stage}.url, or leave `url` out to download it{}",
            expansion_hint(path)
        ))
        .into());
    }
    let digest = match store {
        Some(store) => store.hash_file_cached(path),
        None => hash_file(path).map_err(Into::into),
    };
    digest.map_err(|e| InputError(format!("stage {stage}: stages.{stage}.url: reading {shown}: {e:#}")).into())
}
