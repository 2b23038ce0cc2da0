//! Parsers of values on the command line.

use crate::config::{Device, ExecutorKind};

/// Parses an executor.
pub(super) fn executor(text: &str) -> Result<ExecutorKind, String> {
    text.parse().map_err(|expected| format!("must be {expected}"))
}

/// Parses a device.
pub(super) fn device(text: &str) -> Result<Device, String> {
    text.parse().map_err(|expected| format!("must be {expected}"))
}

/// Parses an integer from `MIN` to `MAX`, both inclusive.
pub(super) fn integer<T: TryFrom<u64>, const MIN: u64, const MAX: u64>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match MAX {
        u64::MAX => format!("must be a whole number, {MIN} or more"),
        _ => format!("must be a whole number from {MIN} to {MAX}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_parsed() {
        let parsed = ["auto", "cpu", "cuda", "cuda:3"].map(|text| device(text).unwrap());
        assert_eq!(parsed, [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3)]);
        assert!(["gpu", "cuda:", "cuda:x", ""].iter().all(|text| device(text).is_err()));
    }
}
