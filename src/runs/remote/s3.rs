//! Objects in an S3 bucket, or on a server with a compatible protocol.
//!
//! Error messages contain the `<Code>` and `<Message>` of the server's response, and a hint for the code. Redirects are
//! not followed, because a signature is valid for one host only. Requests to an overloaded server are retried a few
//! times.

use std::fs::File;
use std::io::Read;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::Body;
use ureq::http::Response;

use super::Unavailable;
use crate::config::InputError;
use crate::config::redact;
use crate::io::http::Limits;

/// How long a signed request is valid. A request may wait this long before it is sent.
const VALIDITY: Duration = Duration::from_secs(3600);
/// The maximum number of attempts if the server is overloaded.
const MAX_TRIES: u32 = 4;
/// The delay before the first retry. It doubles with each retry.
const BACKOFF: Duration = Duration::from_millis(500);
/// The maximum number of bytes to read from an error response.
const MAX_ERROR_BYTES: u64 = 16 << 10;

/// A prefix in an S3 bucket.
pub struct S3 {
    bucket: Bucket,
    credentials: Option<Credentials>,
    prefix: String,
    limits: Limits,
    agent: ureq::Agent,
}

/// An error response.
struct ErrorResponse {
    status: u16,
    code: Option<String>,
    message: Option<String>,
    /// The region of the bucket, if the server reports it.
    region: Option<String>,
}

/// The size in bytes that a response states for its body.
fn length(response: &Response<Body>) -> Option<u64> {
    response.headers().get("Content-Length").and_then(|length| length.to_str().ok()?.parse().ok())
}

impl S3 {
    /// Opens `BUCKET` or `BUCKET/PREFIX`. Credentials, region and endpoint come from the environment variables of the
    /// AWS tools.
    pub(super) fn open(address: &str) -> Result<Self> {
        Self::with(address, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn with(address: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
        let wrong = |error: String| InputError(format!("remote s3://{address}: {error}"));
        if bucket.is_empty() {
            return Err(wrong("the bucket is missing: write s3://BUCKET or s3://BUCKET/PREFIX".into()).into());
        }
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".into());
        let endpoint =
            ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().find_map(|name| Some((*name, variable(name)?)));
        // Self-hosted servers rarely have a host name per bucket.
        let style = if endpoint.is_some() { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let (name, endpoint) = endpoint.unwrap_or(("AWS_REGION", format!("https://s3.{region}.amazonaws.com")));
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            let shown = redact(&endpoint);
            let error = format!("{name}={shown} does not begin with http:// or https://: write {name}=http://{shown}");
            return Err(wrong(error).into());
        }
        let url = endpoint.parse().map_err(|e| wrong(format!("{name}={}: {e}", redact(&endpoint))))?;
        let bucket = Bucket::new(url, style, bucket.to_string(), region).map_err(|e| wrong(e.to_string()))?;
        let credentials = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => Some(match variable("AWS_SESSION_TOKEN") {
                Some(token) => Credentials::new_with_token(id, secret, token),
                None => Credentials::new(id, secret),
            }),
            // Public buckets need no credentials.
            _ => None,
        };
        let limits = Limits::default();
        let agent = limits.agent(0);
        Ok(Self { bucket, credentials, prefix: prefix.trim_matches('/').to_string(), limits, agent })
    }

    /// Opens an object; None if it does not exist. Fails if the object is larger than `max_bytes`.
    pub(super) fn get(&self, path: &str, max_bytes: u64) -> Result<Option<impl Read + use<>>> {
        let name = self.name(path);
        let context = || format!("reading {name}");
        let url = self.bucket.get_object(self.credentials.as_ref(), &name).sign(VALIDITY);
        let response = self.send(|| self.agent.get(url.as_str()).call()).with_context(context)?;
        match response.status().as_u16() {
            200 => {
                if let Some(length) = length(&response).filter(|&length| length > max_bytes) {
                    bail!("reading {name}: the object has {length} bytes, but at most {max_bytes} are expected");
                }
                Ok(Some(self.limits.body(response.into_body().into_with_config().limit(u64::MAX).reader())))
            }
            _ => self.missing(ErrorResponse::read(response, &self.limits)).with_context(context),
        }
    }

    /// Returns the size of an object in bytes; None if it does not exist.
    pub(super) fn size(&self, path: &str) -> Result<Option<u64>> {
        let name = self.name(path);
        let context = || format!("looking for {name}");
        let url = self.bucket.head_object(self.credentials.as_ref(), &name).sign(VALIDITY);
        let response = self.send(|| self.agent.head(url.as_str()).call()).with_context(context)?;
        match response.status().as_u16() {
            200 => Ok(Some(length(&response).unwrap_or(0))),
            404 => Ok(None),
            _ => {
                // The response to HEAD has no body, which would contain the reason.
                let url = self.bucket.get_object(self.credentials.as_ref(), &name).sign(VALIDITY);
                let response = self.send(|| self.agent.get(url.as_str()).call()).with_context(context)?;
                match response.status().as_u16() {
                    200 => Ok(Some(length(&response).unwrap_or(0))),
                    _ => self.missing(ErrorResponse::read(response, &self.limits)).with_context(context),
                }
            }
        }
    }

    /// Writes an object atomically.
    pub(super) fn put(&self, path: &str, mut content: File) -> Result<()> {
        let name = self.name(path);
        let context = || format!("writing {name}");
        let length = content.metadata().with_context(context)?.len();
        let url = self.bucket.put_object(self.credentials.as_ref(), &name).sign(VALIDITY);
        let response = self
            .send(|| {
                std::io::Seek::rewind(&mut content)?;
                let body = self.limits.upload(content.try_clone()?);
                let request = self.agent.put(url.as_str()).header("Content-Length", length.to_string());
                request.send(ureq::SendBody::from_owned_reader(body))
            })
            .with_context(context)?;
        match response.status().as_u16() {
            200 | 201 | 204 => Ok(()),
            _ => Err(self.error(ErrorResponse::read(response, &self.limits), true)).with_context(context),
        }
    }

    fn name(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_string() } else { format!("{}/{path}", self.prefix) }
    }

    /// Sends a request. Retries if the server is overloaded, and once if the connection was lost, but not after a
    /// timeout.
    fn send(
        &self,
        mut request: impl FnMut() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Unavailable> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match request() {
                Ok(response)
                    if tries < MAX_TRIES && matches!(response.status().as_u16(), 429 | 500 | 502 | 503 | 504) =>
                {
                    None
                }
                Ok(response) => return Ok(response),
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                let is_lost = matches!(&error, ureq::Error::Io(e) if e.kind() != std::io::ErrorKind::TimedOut);
                if !is_lost || tries > 1 {
                    return Err(Unavailable(redact(&error.to_string()).into_owned()));
                }
            }
            thread::sleep(BACKOFF * 2u32.pow(tries - 1));
        }
    }

    /// Returns `Ok(None)` if the response means that the object does not exist, otherwise an error.
    fn missing<T>(&self, response: ErrorResponse) -> Result<Option<T>> {
        match (response.status, response.code.as_deref()) {
            (404, Some("NoSuchBucket")) => {}
            // Without permission to list the bucket, a missing object gives AccessDenied.
            (404, _) | (403, Some("AccessDenied")) => return Ok(None),
            _ => {}
        }
        Err(self.error(response, false))
    }

    fn error(&self, response: ErrorResponse, writing: bool) -> anyhow::Error {
        let advice = self.advice(&response, writing);
        Unavailable(format!("{response}{}", advice.map_or(String::new(), |advice| format!(". {advice}")))).into()
    }

    fn advice(&self, response: &ErrorResponse, writing: bool) -> Option<String> {
        let set_keys = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ask for access to the bucket";
        let set_region = || match &response.region {
            Some(region) if region != self.bucket.region() => {
                format!("The bucket is in region {region}: set AWS_REGION={region}")
            }
            _ => "Set AWS_REGION to the region of the bucket, or AWS_ENDPOINT_URL to the address of the server".into(),
        };
        Some(match response.code.as_deref() {
            Some("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken") => {
                "Get new credentials and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN".into()
            }
            Some("RequestTimeTooSkewed" | "RequestExpired") => "Correct the clock of this machine".into(),
            Some("InvalidAccessKeyId") => "Set AWS_ACCESS_KEY_ID to a valid key of this server".into(),
            Some("SignatureDoesNotMatch") => {
                "Set AWS_SECRET_ACCESS_KEY to the secret that belongs to AWS_ACCESS_KEY_ID".into()
            }
            Some("NoSuchBucket") => {
                format!("Create the bucket {}, or correct the address of the shared cache", self.bucket.name())
            }
            Some(
                "PermanentRedirect"
                | "TemporaryRedirect"
                | "Redirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException"
                | "IncorrectEndpoint",
            ) => set_region(),
            Some("SlowDown" | "ServiceUnavailable" | "InternalError" | "RequestTimeout") => "Try again later".into(),
            Some("AccessDenied") if self.credentials.is_none() => set_keys.into(),
            Some("AccessDenied") if writing => "Pushing needs the permission s3:PutObject for the bucket".into(),
            _ => match response.status {
                301 | 302 | 307 | 308 => set_region(),
                401 | 403 if self.credentials.is_none() => set_keys.into(),
                401 | 403 => {
                    "The credentials need the permissions s3:GetObject and s3:ListBucket, and s3:PutObject to push"
                        .into()
                }
                400 if response.region.as_deref().is_some_and(|region| region != self.bucket.region()) => set_region(),
                429 | 500.. => "Try again later".into(),
                _ => return None,
            },
        })
    }
}

impl ErrorResponse {
    fn read(response: Response<Body>, limits: &Limits) -> Self {
        let status = response.status().as_u16();
        let region = response.headers().get("x-amz-bucket-region").and_then(|region| region.to_str().ok()).map(plain);
        let mut body = vec![];
        // A partial error body is still useful.
        let _ = limits.body(response.into_body().into_reader()).take(MAX_ERROR_BYTES).read_to_end(&mut body);
        let body = String::from_utf8_lossy(&body);
        let of = |name: &str| element(&body, name).map(plain).filter(|text| !text.is_empty());
        Self { status, code: of("Code"), message: of("Message"), region: region.or_else(|| of("Region")) }
    }
}

impl std::fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.code {
            Some(code) => write!(f, "the server returned {code} (status {})", self.status)?,
            None => write!(f, "the server returned status {}", self.status)?,
        }
        match &self.message {
            Some(message) => write!(f, ": {}", message.trim_end_matches('.')),
            None => Ok(()),
        }
    }
}

/// Returns the text of an XML element that contains no other elements.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// Decodes XML text to one line of bounded length, with secrets redacted.
fn plain(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    let text = redact(&text.replace("&amp;", "&")).split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// Returns a bucket on a server that sends these responses in order: status, headers, body.
    fn bucket(responses: Vec<(u16, &'static str, &'static str)>) -> S3 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (status, headers, body) in responses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines =
                    BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                let is_head = lines.next().is_some_and(|line| line.starts_with("HEAD"));
                let length = body.len();
                lines.for_each(drop);
                let body = if is_head { "" } else { body };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        let variables = move |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some(endpoint.clone()),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("x".into()),
            _ => None,
        };
        S3::with("bucket/prefix", variables).unwrap()
    }

    fn failure<T>(result: Result<T>) -> String {
        let error = result.err().unwrap();
        assert!(error.is::<Unavailable>(), "{error:#}");
        format!("{error:#}")
    }

    #[test]
    fn errors_contain_the_reason_from_the_server_and_a_hint() {
        for (status, headers, body, expected) in [
            (
                400,
                "",
                "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>",
                ["ExpiredToken (status 400): The provided token has expired. Get new credentials", "AWS_SESSION_TOKEN"],
            ),
            (403, "", "<Error><Code>RequestTimeTooSkewed</Code><Message></Message></Error>", ["TooSkewed", "clock"]),
            (
                301,
                "x-amz-bucket-region: eu-west-1\r\n",
                "<Error><Code>PermanentRedirect</Code></Error>",
                ["PermanentRedirect", "set AWS_REGION=eu-west-1"],
            ),
            (301, "x-amz-bucket-region: eu-west-1\r\n", "", ["status 301", "set AWS_REGION=eu-west-1"]),
            (
                400,
                "",
                "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-2</Region></Error>",
                ["AuthorizationHeaderMalformed", "set AWS_REGION=eu-west-2"],
            ),
            (403, "", "<Error><Code>SignatureDoesNotMatch</Code></Error>", ["Signature", "AWS_SECRET_ACCESS_KEY"]),
            (404, "", "<Error><Code>NoSuchBucket</Code></Error>", ["NoSuchBucket", "Create the bucket bucket"]),
            (418, "", "<Error><Code>Teapot</Code><Message>a &lt;b&gt;\n c</Message></Error>", ["Teapot", ": a <b> c"]),
        ] {
            let get = failure(bucket(vec![(status, headers, body)]).get("a", 10));
            assert!(get.starts_with("reading prefix/a: ") && expected.iter().all(|part| get.contains(part)), "{get}");
            let put = failure(bucket(vec![(status, headers, body)]).put("a", tempfile::tempfile().unwrap()));
            assert!(put.starts_with("writing prefix/a: ") && expected.iter().all(|part| put.contains(part)), "{put}");
            // After HEAD, 404 is final; for other errors, a GET request gets the body with the reason.
            if status != 404 {
                let size = failure(bucket(vec![(status, headers, body); 2]).size("a"));
                assert!(size.starts_with("looking for ") && expected.iter().all(|part| size.contains(part)), "{size}");
            }
        }
    }

    #[test]
    fn access_denied_means_missing_when_reading_and_is_an_error_when_writing() {
        let denied = (403, "", "<Error><Code>AccessDenied</Code></Error>");
        assert!(bucket(vec![denied]).get("a", 10).unwrap().is_none());
        assert_eq!(bucket(vec![denied, denied]).size("a").unwrap(), None);
        let text = failure(bucket(vec![denied]).put("a", tempfile::tempfile().unwrap()));
        assert!(text.contains("AccessDenied") && text.contains("s3:PutObject"), "{text}");
        assert_eq!(bucket(vec![(404, "", "")]).size("a").unwrap(), None);
        assert!(bucket(vec![(404, "", "<Code>NoSuchKey</Code>")]).get("a", 10).unwrap().is_none());
    }

    #[test]
    fn requests_to_an_overloaded_server_are_retried() {
        let slow = (503, "", "<Error><Code>SlowDown</Code></Error>");
        let mut content = String::new();
        bucket(vec![slow, (200, "", "hello")]).get("a", 10).unwrap().unwrap().read_to_string(&mut content).unwrap();
        let error = bucket(vec![(200, "", "more than ten bytes")]).get("a", 10).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("19 bytes, but at most 10 are expected"), "{text}");
        assert_eq!(content, "hello");
        assert_eq!(bucket(vec![slow, (200, "", "hello")]).size("a").unwrap(), Some(5));
        let text = failure(bucket(vec![slow; MAX_TRIES as usize]).get("a", 10));
        assert!(text.contains("SlowDown") && text.contains("later"), "{text}");
    }

    #[test]
    fn endpoints_have_a_scheme() {
        for (endpoint, expected) in
            [("localhost:9000", "write AWS_ENDPOINT_URL=http://localhost:9000"), ("ftp://x", "http://")]
        {
            let error = S3::with("b", |name| (name == "AWS_ENDPOINT_URL").then(|| endpoint.into())).err().unwrap();
            assert!(error.is::<InputError>() && error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn an_address_is_a_bucket_and_a_prefix() {
        let s3 = S3::with("bucket/a/b/", |_| None).unwrap();
        assert_eq!((s3.bucket.name(), s3.prefix.as_str()), ("bucket", "a/b"));
        assert!(S3::with("", |_| None).is_err());
    }
}
