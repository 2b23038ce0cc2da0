//! Bounded readers for data that is not under srpipe's control: HTTP connections and tar archives.

pub mod http;
pub mod tar;
