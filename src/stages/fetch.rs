//! The `fetch` stage: gets a dataset and splits it into training, validation and test images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, bail};
use rayon::prelude::*;

use super::{Context, Interrupted, Outcome, StageEvent};
use crate::config::{Broken, Cifar10Params, FetchParams, FolderParams};
use crate::config::{SecretUrl, blobs};
use crate::data::Metadata;
use crate::data::cifar::{self, Source};
use crate::data::download::{self, DownloadError, RetryPolicy};
use crate::data::{Images, Split, Splits, folder, maps, synthetic};
use crate::store::Digest;

/// Writes the blobs [`blobs::TRAIN_HR`], [`blobs::VALIDATION_HR`] and [`blobs::TEST_HR`].
///
/// Metrics: `train_images`, `validation_images`, `test_images`. Fails with [`Interrupted`] on a stop request; the next
/// run resumes the download.
pub(super) fn run(params: &FetchParams, ctx: &Context) -> anyhow::Result<Outcome> {
    let splits = match params {
        FetchParams::Cifar10(p) => fetch_cifar10(p, ctx)?,
        FetchParams::Synthetic(p) => {
            let draw = |split, range| synthetic::generate_range(ctx.seed, split, range);
            generate([p.train, p.validation, p.test], synthetic::SIDE, draw, ctx)?
        }
        FetchParams::Maps(p) => {
            let draw = |split, range| maps::generate_range(p, ctx.seed, split, range);
            generate([p.train, p.validation, p.test], p.size, draw, ctx)?
        }
        FetchParams::Folder(p) => read_folder(p, ctx)?,
    };
    let mut outcome = Outcome::default();
    for (name, blob, images) in [
        ("train_images", blobs::TRAIN_HR, &splits.train),
        ("validation_images", blobs::VALIDATION_HR, &splits.validation),
        ("test_images", blobs::TEST_HR, &splits.test),
    ] {
        let digest = ctx.store.put(&images.to_safetensors(&Metadata::new()))?;
        outcome.outputs.insert(blob.to_string(), digest);
        outcome.metrics.insert(name.to_string(), images.count as f64);
    }
    Ok(outcome)
}

fn fetch_cifar10(params: &Cifar10Params, ctx: &Context) -> anyhow::Result<Splits> {
    let (train, test) = match cifar::source(params)? {
        Source::File { path, .. } => read_archive(&path, true, ctx)?,
        Source::Web { addresses, sha256 } => {
            let part = ctx.work.join("archive.part");
            get_archive(&addresses, &sha256, &part, ctx)?;
            let images = read_archive(&part, false, ctx)?;
            std::fs::remove_file(&part).with_context(|| format!("removing {}", part.display()))?;
            images
        }
    };
    cifar::split(&train, &test, params.validation, &params.limit)
}

fn get_archive(addresses: &[SecretUrl], sha256: &str, part: &Path, ctx: &Context) -> anyhow::Result<()> {
    std::fs::create_dir_all(&ctx.work).with_context(|| format!("creating the folder {}", ctx.work.display()))?;
    message(ctx, format!("getting {}", addresses[0]));
    let retry = RetryPolicy::default();
    let request = download::Request { addresses, sha256, part, max_bytes: cifar::MAX_ARCHIVE_BYTES, retry };
    let observer = download::Observer {
        progress: &|done, total| progress(ctx, done, total.unwrap_or(0), "bytes"),
        message: &|text| message(ctx, text),
        interrupted: ctx.interrupted,
    };
    match download::download(&request, &observer) {
        Ok(()) => Ok(()),
        Err(DownloadError::Interrupted) => Err(Interrupted.into()),
        Err(DownloadError::Local(e)) => Err(e),
        Err(e @ DownloadError::Failed(_)) => {
            // A server that sent the wrong content leaves nothing worth keeping.
            let arrived = std::fs::metadata(part).is_ok_and(|part| part.len() > 0);
            let kept = if arrived { " (the partial download is kept)" } else { "" };
            Err(anyhow::anyhow!(
                "{e}\nCheck the connection and run again{kept}, add addresses to `mirrors`, or get the archive \
                 by other means and set `url: file:PATH`"
            ))
        }
    }
}

/// Reads the images of the archive at `path`; `check` verifies that its content still matches the key.
fn read_archive(path: &Path, check: bool, ctx: &Context) -> anyhow::Result<(Images, Images)> {
    let doing = || format!("reading the archive {}", path.display());
    let mut file = File::open(path).with_context(doing)?;
    if check {
        let digest = download::sha256_of(&mut file).with_context(doing)?;
        unchanged(path, "archive", &digest, ctx)?;
        file.rewind().with_context(doing)?;
    }
    message(ctx, format!("unpacking {}", path.display()));
    let images = cifar::read_archive(BufReader::new(file)).with_context(doing)?;
    stop_if_asked(ctx)?;
    Ok(images)
}

/// Fails if external content no longer matches the stage's key.
fn unchanged(path: &Path, source: &str, digest: &str, ctx: &Context) -> anyhow::Result<()> {
    let expected = ctx.sources.get(source).with_context(|| format!("the stage has no source `{source}`"))?;
    let changed = format!("{} has changed since this run was started; run again", path.display());
    if expected.to_string() != digest {
        // The key may contain a cached digest that turns out to be wrong.
        ctx.store.forget_hashes(path);
        bail!(changed);
    }
    Ok(())
}

/// The number of files decoded between two checks for a stop request.
const FILES: usize = 64;

fn read_folder(params: &FolderParams, ctx: &Context) -> anyhow::Result<Splits> {
    let path = Path::new(&params.path);
    let listing = folder::list(path, Some(ctx.store.runs_dir()))?;
    listing.notes.iter().for_each(|note| message(ctx, note.clone()));
    let files = &listing.files;
    let mut found = BTreeMap::new();
    let mut broken = vec![];
    let mut digests = vec![];
    for (done, chunk) in files.chunks(FILES).enumerate() {
        stop_if_asked(ctx)?;
        progress(ctx, (done * FILES) as u64, files.len() as u64, "files");
        let read = chunk.par_iter().map(|file| {
            let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            Ok((Digest::of(&bytes), folder::images(&bytes, params)))
        });
        let read: Vec<_> = read.collect::<anyhow::Result<_>>()?;
        for (file, (digest, images)) in chunk.iter().zip(read) {
            digests.push(digest.clone());
            match images {
                Ok(images) => _ = found.insert(digest, images),
                Err(error) => broken.push(format!("{}: {error:#}", file.display())),
            }
        }
    }
    unchanged(path, "images", &listing.content(&digests, params.broken).to_string(), ctx)?;
    let copies = files.len() - broken.len() - found.len();
    let unreadable = listing.unreadable.iter().map(|(file, reason)| format!("{}: {reason}", file.display()));
    broken.extend(unreadable);
    match params.broken {
        Broken::Refuse if !broken.is_empty() => {
            const SHOWN: usize = 10;
            let more = broken.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
            bail!(
                "{} of {} files cannot be used:\n  {}{more}\nFix or remove them, or set `broken: skip`",
                broken.len(),
                files.len() + listing.unreadable.len(),
                broken[..broken.len().min(SHOWN)].join("\n  ")
            );
        }
        _ => broken.iter().for_each(|broken| message(ctx, format!("skipped {broken}"))),
    }
    if copies > 0 {
        message(ctx, format!("{copies} files are duplicates of another; each distinct file is used once"));
    }
    folder::split(found.into_values().collect(), params)
}

/// The number of images generated between two checks for a stop request.
const CHUNK: usize = 256;

/// Generates `counts` images of the training, validation and test split, of `side`×`side` pixels each.
fn generate(
    counts: [usize; 3],
    side: usize,
    draw: impl Fn(Split, Range<usize>) -> Images,
    ctx: &Context,
) -> anyhow::Result<Splits> {
    let total: usize = counts.iter().sum();
    let mut done = 0;
    let mut split = |split: Split, count: usize| -> anyhow::Result<Images> {
        let mut pixels = vec![];
        for start in (0..count).step_by(CHUNK) {
            stop_if_asked(ctx)?;
            let range = start..count.min(start + CHUNK);
            done += range.len();
            pixels.append(&mut draw(split, range).pixels);
            progress(ctx, done as u64, total as u64, "images");
        }
        Ok(Images::new(count, side, side, pixels))
    };
    Ok(Splits {
        train: split(Split::Train, counts[0])?,
        validation: split(Split::Validation, counts[1])?,
        test: split(Split::Test, counts[2])?,
    })
}

fn stop_if_asked(ctx: &Context) -> anyhow::Result<()> {
    if (ctx.interrupted)() { Err(Interrupted.into()) } else { Ok(()) }
}

fn message(ctx: &Context, text: String) {
    (ctx.report)(StageEvent::Message { text });
}

fn progress(ctx: &Context, done: u64, total: u64, unit: &str) {
    (ctx.report)(StageEvent::Progress { done, total, unit: unit.to_string(), values: BTreeMap::new() });
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
