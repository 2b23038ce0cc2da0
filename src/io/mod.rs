//! Bounded exchange with sources that srpipe does not control: `http` limits the time of requests and the rate of their
//! bodies, and `tar` limits the size of archives.

pub mod http;
pub mod tar;
