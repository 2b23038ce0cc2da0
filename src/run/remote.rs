//! A cache that several people share: a folder, or a bucket of S3 or of what speaks like it.
//!
//! It holds records and blobs as a store does, under `actions/` and `blobs/`, so that the `store` folder of another
//! `runs` is one. It is read through: before a stage runs, its key is looked up; and nothing that comes from it is
//! believed (see [`Store::adopt_blob`]). Only `push` writes to it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::InputError;
use crate::plan::Preimage;
use crate::store::{Key, MAX_RECORD_BYTES, Record, Store};

/// How long a request is valid, which is how long it may wait to be sent.
const VALID: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(30);

pub enum Remote {
    Folder(PathBuf),
    S3 { bucket: Box<Bucket>, credentials: Option<Credentials>, prefix: String, agent: ureq::Agent },
}

impl Remote {
    /// `s3://BUCKET/PREFIX`, or a folder. Credentials, region and endpoint of S3 come from the variables that its own
    /// tools read.
    pub fn open(address: &str) -> Result<Self> {
        let Some(rest) = address.strip_prefix("s3://") else {
            ensure!(!address.contains("://"), InputError(format!("remote {address}: a folder or `s3://…` is needed")));
            return Ok(Self::Folder(address.into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".into());
        let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        // Servers of one's own seldom have a name for each bucket.
        let style = if endpoint.is_some() { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let wrong = |error: String| InputError(format!("remote {address}: {error}"));
        let url = endpoint.parse().map_err(|e| wrong(format!("the endpoint {endpoint}: {e}")))?;
        let bucket = Bucket::new(url, style, bucket.to_string(), region).map_err(|e| wrong(e.to_string()))?;
        let credentials = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => Some(match variable("AWS_SESSION_TOKEN") {
                Some(token) => Credentials::new_with_token(id, secret, token),
                None => Credentials::new(id, secret),
            }),
            // Public buckets want none.
            _ => None,
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("srpipe/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(TIMEOUT))
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .build()
            .new_agent();
        let prefix = prefix.trim_matches('/').to_string();
        Ok(Self::S3 { bucket: Box::new(bucket), credentials, prefix, agent })
    }

    /// What lies under a path; None where there is nothing.
    fn get(&self, path: &Path) -> Result<Option<Box<dyn Read>>> {
        match self {
            Self::Folder(folder) => match File::open(folder.join(path)) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                opened => {
                    Ok(Some(Box::new(opened.with_context(|| format!("opening {}", folder.join(path).display()))?)))
                }
            },
            Self::S3 { bucket, credentials, agent, .. } => {
                let name = self.name(path);
                let url = bucket.get_object(credentials.as_ref(), &name).sign(VALID);
                let response = agent.get(url.as_str()).call().with_context(|| format!("getting {name}"))?;
                match response.status().as_u16() {
                    200 => Ok(Some(Box::new(response.into_body().into_with_config().limit(u64::MAX).reader()))),
                    404 => Ok(None),
                    status => bail!("getting {name}: the server answers with status {status}{}", advice(status)),
                }
            }
        }
    }

    fn has(&self, path: &Path) -> Result<bool> {
        match self {
            Self::Folder(folder) => Ok(folder.join(path).is_file()),
            Self::S3 { bucket, credentials, agent, .. } => {
                let name = self.name(path);
                let url = bucket.head_object(credentials.as_ref(), &name).sign(VALID);
                let response = agent.head(url.as_str()).call().with_context(|| format!("looking for {name}"))?;
                match response.status().as_u16() {
                    200 => Ok(true),
                    404 => Ok(false),
                    status => bail!("looking for {name}: the server answers with status {status}{}", advice(status)),
                }
            }
        }
    }

    /// Puts the content of a file under a path, whole or not at all.
    fn put(&self, path: &Path, from: &Path) -> Result<()> {
        match self {
            Self::Folder(folder) => {
                let to = folder.join(path);
                let parent = to.parent().unwrap_or(folder);
                fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
                let copy = || {
                    let temporary = tempfile::Builder::new().prefix(".tmp-").tempfile_in(parent)?;
                    std::io::copy(&mut File::open(from)?, &mut temporary.as_file())?;
                    temporary.as_file().sync_all()?;
                    // Others read it too.
                    use std::os::unix::fs::PermissionsExt;
                    temporary.as_file().set_permissions(fs::Permissions::from_mode(0o444))?;
                    temporary.persist(&to).map_err(|e| e.error)
                };
                copy().map(drop).with_context(|| format!("copying to {}", to.display()))
            }
            Self::S3 { bucket, credentials, agent, .. } => {
                let name = self.name(path);
                let url = bucket.put_object(credentials.as_ref(), &name).sign(VALID);
                let file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
                let length = file.metadata().with_context(|| format!("reading {}", from.display()))?.len();
                let request = agent.put(url.as_str()).header("Content-Length", length.to_string());
                let response = request.send(file).with_context(|| format!("putting {name}"))?;
                match response.status().as_u16() {
                    200 | 201 | 204 => Ok(()),
                    status => bail!("putting {name}: the server answers with status {status}{}", advice(status)),
                }
            }
        }
    }

    fn name(&self, path: &Path) -> String {
        let path = path.to_string_lossy();
        match self {
            Self::S3 { prefix, .. } if !prefix.is_empty() => format!("{prefix}/{path}"),
            _ => path.into_owned(),
        }
    }

    /// Brings what the cache knows of `key` into the store; false where it knows nothing.
    pub fn fetch(&self, store: &Store, key: &Key) -> Result<bool> {
        let Some(content) = self.get(&Record::path(key))? else { return Ok(false) };
        let mut bytes = vec![];
        content.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).context("reading a record")?;
        let record = checked(Record::read(key, bytes)?)?;
        for (name, (digest, size)) in &record.outputs {
            let Some(content) = self.get(&Record::blob_path(digest))? else {
                bail!("it has a record of the key {key}, but not its blob {digest} ({name})");
            };
            store.adopt_blob(digest, *size, content)?;
        }
        store.adopt(&record)?;
        Ok(true)
    }

    /// Copies what is known of `key` to the cache, the record last; false where it is there.
    pub fn push(&self, store: &Store, key: &Key) -> Result<bool> {
        if self.has(&Record::path(key))? {
            return Ok(false);
        }
        let record = store.record_of(key)?.with_context(|| format!("the key {key} is not known any more"))?;
        for (digest, _) in record.outputs.values() {
            store.check(digest)?;
            if !self.has(&Record::blob_path(digest))? {
                self.put(&Record::blob_path(digest), &store.blob_path(digest))?;
            }
        }
        let mut file = tempfile::NamedTempFile::new().context("making a temporary file")?;
        std::io::Write::write_all(&mut file, record.bytes()).context("writing a temporary file")?;
        self.put(&Record::path(key), file.path())?;
        Ok(true)
    }
}

/// The record, if its outputs are those that its kind of stage makes.
pub fn checked(record: Record) -> Result<Record> {
    let outputs =
        Preimage::of(&record.action).map_or(Ok(()), |preimage| preimage.check_outputs(&record.action.outputs));
    outputs.map_err(|reason| anyhow!("the record of the key {} is wrong: {reason}", record.key))?;
    Ok(record)
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => ". Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ask for access to the bucket",
        301 | 307 | 400 => ". Is AWS_REGION that of the bucket, and AWS_ENDPOINT_URL the server's address?",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::store::{Action, Cost, Digest};

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("runs")).unwrap();
        (folder, store)
    }

    fn know(store: &Store) -> (Key, Digest) {
        let preimage = json!({"a": 1});
        let key = Key::of_preimage(&preimage);
        let digest = store.put(b"content").unwrap();
        let outputs = [("out".to_string(), digest.clone())].into();
        store.commit(&key, &Action { preimage, outputs, metrics: BTreeMap::new(), cost: Cost::default() }).unwrap();
        (key, digest)
    }

    #[test]
    fn a_folder_is_pushed_to_and_read_through() {
        let ((_a, from), (_b, to)) = (store(), store());
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = know(&from);
        assert!(!remote.fetch(&to, &key).unwrap());
        assert!(remote.push(&from, &key).unwrap());
        assert!(!remote.push(&from, &key).unwrap(), "it is there");
        assert!(remote.fetch(&to, &key).unwrap());
        assert_eq!(to.action(&key).unwrap(), from.action(&key).unwrap());
        assert_eq!(to.read(&digest).unwrap(), b"content");
        // The folder of another store is one, too.
        let direct = Remote::open(from.runs_dir().join("store").to_str().unwrap()).unwrap();
        assert!(direct.fetch(&store().1, &key).is_ok());
    }

    #[test]
    fn what_a_remote_says_is_checked() {
        let ((_a, from), (_b, to)) = (store(), store());
        let shared = tempfile::tempdir().unwrap();
        let remote = Remote::open(shared.path().to_str().unwrap()).unwrap();
        let (key, digest) = know(&from);
        remote.push(&from, &key).unwrap();
        let blob = shared.path().join(Record::blob_path(&digest));
        let replace = |path: &Path, bytes: &[u8]| {
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
        };
        replace(&blob, b"CONTENT");
        assert!(format!("{:#}", remote.fetch(&to, &key).unwrap_err()).contains("damaged"));
        fs::remove_file(&blob).unwrap();
        assert!(remote.fetch(&to, &key).unwrap_err().to_string().contains("not its blob"));
        let record = shared.path().join(Record::path(&key));
        let text = fs::read_to_string(&record).unwrap();
        replace(&record, text.replace("\"a\": 1", "\"a\": 2").as_bytes());
        assert!(format!("{:#}", remote.fetch(&to, &key).unwrap_err()).contains("does not match its checksum"));
        replace(&record, b"{");
        assert!(remote.fetch(&to, &key).unwrap_err().to_string().contains("damaged"));
        assert_eq!(to.action(&key).unwrap(), None);
    }

    #[test]
    fn addresses_are_folders_or_buckets() {
        assert!(matches!(Remote::open("some/folder").unwrap(), Remote::Folder(_)));
        let Remote::S3 { bucket, prefix, .. } = Remote::open("s3://bucket/a/b/").unwrap() else { panic!() };
        assert_eq!((bucket.name(), prefix.as_str()), ("bucket", "a/b"));
        assert!(Remote::open("http://x").is_err_and(|error| error.is::<InputError>()));
    }
}
