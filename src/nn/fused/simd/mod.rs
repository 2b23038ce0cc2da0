//! Vectors of f32 behind one trait, and the selection of an instruction set at run time.
//!
//! A kernel is written once, generic over [`Simd`], inside [`kernel!`], which compiles it for every instruction set and
//! dispatches on [`Isa`]. Every method rounds as IEEE 754 requires (multiply-adds once), and kernels sum in an order
//! that does not depend on the vector width, so all instruction sets give the same bits.

use std::marker::PhantomData;

use anyhow::{Result, bail};

#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;
#[cfg(target_arch = "x86_64")]
pub mod x86;

/// The number of columns in a packed panel, and of interleaved sums along channels. A multiple of every vector width.
pub const PANEL: usize = 16;

/// Vector operations on `LANES` numbers.
///
/// # Safety
///
/// Methods must be called where the instruction set is enabled. `load` and `store` access `LANES` numbers from `at` on;
/// the masked versions access only the lanes in the mask.
pub trait Simd: Copy + 'static {
    type V: Copy;
    type Mask: Copy;
    const LANES: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(at: *const f32) -> Self::V;
    unsafe fn store(at: *mut f32, v: Self::V);
    /// Returns a mask of the first `n` lanes, or of all if `n` is larger.
    unsafe fn mask(n: usize) -> Self::Mask;
    /// Loads the lanes in the mask; the others are zero.
    unsafe fn load_masked(at: *const f32, mask: Self::Mask) -> Self::V;
    unsafe fn store_masked(at: *mut f32, mask: Self::Mask, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// Returns a · b + c, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Returns a if a > b, else b.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// Returns a if a < b, else b.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// Returns x where a = b, else y.
    unsafe fn if_equal(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Returns 2ⁿ for the integer n in the lowest 8 bits of each number.
    unsafe fn pow2_of_low_bits(a: Self::V) -> Self::V;
}

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    Avx512,
    Avx2,
    Neon,
    Portable,
}

impl Isa {
    /// All instruction sets, from the fastest to the slowest.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// Returns the name, as `SRPIPE_SIMD` expects it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }

    /// Returns whether this machine supports the instruction set.
    pub(in crate::nn) fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Isa::Portable => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// Returns the fastest instruction set that this machine supports.
    pub fn best() -> Self {
        Isa::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// Returns the instruction set that the environment variable `SRPIPE_SIMD` names, or [`best`](Self::best) if it is
    /// not set.
    pub fn from_env() -> Result<Self> {
        match std::env::var_os("SRPIPE_SIMD").filter(|name| !name.is_empty()) {
            Some(name) => Isa::from_name(&name.to_string_lossy()),
            None => Ok(Self::best()),
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        let isa = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        let available: Vec<&str> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect();
        let remedy = format!("set it to {}, or unset it to use the first of these", available.join(" or "));
        match isa {
            None => bail!("SRPIPE_SIMD={name} is not a known instruction set; {remedy}"),
            Some(isa) if !isa.is_available() => {
                bail!("SRPIPE_SIMD={name}: this machine does not support {name}; {remedy}")
            }
            Some(isa) => Ok(isa),
        }
    }
}

/// The valid lanes of a vector: all of them, or the first few at the end of a row.
///
/// # Safety
///
/// As for [`Simd`]; only valid lanes are accessed.
pub trait Lanes<S: Simd>: Copy {
    /// Loads the valid lanes; the others are zero.
    unsafe fn load(self, at: *const f32) -> S::V;
    unsafe fn store(self, at: *mut f32, v: S::V);
}

/// All lanes of a vector.
#[derive(Clone, Copy)]
pub struct AllLanes<S>(pub PhantomData<S>);

/// The lanes in a mask.
#[derive(Clone, Copy)]
pub struct FirstLanes<S: Simd>(pub S::Mask);

// SAFETY of these blocks: upheld by the caller.
impl<S: Simd> Lanes<S> for AllLanes<S> {
    #[inline(always)]
    unsafe fn load(self, at: *const f32) -> S::V {
        unsafe { S::load(at) }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32, v: S::V) {
        unsafe { S::store(at, v) }
    }
}

// SAFETY of these blocks: upheld by the caller.
impl<S: Simd> Lanes<S> for FirstLanes<S> {
    #[inline(always)]
    unsafe fn load(self, at: *const f32) -> S::V {
        unsafe { S::load_masked(at, self.0) }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32, v: S::V) {
        unsafe { S::store_masked(at, self.0, v) }
    }
}

/// Runs a block for every vector of a row of `$n` numbers, with the index of the vector's first number and its
/// [`Lanes`].
macro_rules! for_lanes {
    ($s:ident, $n:expr, |$i:ident, $lanes:ident| $body:block) => {{
        #[allow(unused_imports)]
        use $crate::nn::fused::simd::{Lanes, FirstLanes, AllLanes};
        let n: usize = $n;
        let mut $i = 0;
        while $i + $s::LANES <= n {
            let $lanes = AllLanes::<$s>(std::marker::PhantomData);
            $body
            $i += $s::LANES;
        }
        if $i < n {
            let $lanes = FirstLanes::<$s>($s::mask(n - $i));
            $body
        }
    }};
}
pub(crate) use for_lanes;

/// Compiles a function, generic over [`Simd`], for every instruction set. The function that it defines takes an [`Isa`]
/// as its first argument.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident<$s:ident>($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis unsafe fn $name(isa: $crate::nn::fused::simd::Isa, $($arg: $ty),*) {
            use $crate::nn::fused::simd::{Isa, Simd};
            #[inline(always)]
            unsafe fn body<$s: Simd>($($arg: $ty),*) {
                // SAFETY: upheld by the caller.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: upheld by the caller; the instruction set is enabled here.
                unsafe { body::<$crate::nn::fused::simd::x86::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: upheld by the caller; the instruction set is enabled here.
                unsafe { body::<$crate::nn::fused::simd::x86::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            unsafe fn neon($($arg: $ty),*) {
                // SAFETY: upheld by the caller; the instruction set is enabled here.
                unsafe { body::<$crate::nn::fused::simd::neon::Neon>($($arg),*) }
            }
            // SAFETY: upheld by the caller; a `FusedBackend` only uses an instruction set that the machine supports.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => neon($($arg),*),
                    _ => body::<$crate::nn::fused::simd::portable::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use kernel;

/// Returns eˣ with an error of at most 2 units in the last place, for x in [-87, 88]; x is clamped to this range.
///
/// # Safety
///
/// The instruction set of `S` is enabled.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: upheld by the caller.
    unsafe {
        let x = S::min(S::max(x, S::splat(-87.0)), S::splat(88.0));
        // Adding 1.5 · 2²³ puts round(x / ln 2) into the low bits.
        let magic = S::splat(12_582_912.0);
        let shifted = S::fma(x, S::splat(std::f32::consts::LOG2_E), magic);
        let n = S::sub(shifted, magic);
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        // The minimax polynomial of the Cephes library.
        let mut p = S::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = S::fma(p, r, S::splat(c));
        }
        let e = S::add(S::fma(p, S::mul(r, r), r), S::splat(1.0));
        S::mul(e, S::pow2_of_low_bits(shifted))
    }
}

/// Returns 1 / (1 + e⁻ˣ).
///
/// # Safety
///
/// The instruction set of `S` is enabled.
#[inline(always)]
pub unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: upheld by the caller.
    unsafe {
        let e = exp::<S>(S::sub(S::splat(0.0), x));
        S::div(S::splat(1.0), S::add(S::splat(1.0), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_unsupported_instruction_sets_are_errors_that_list_the_supported_ones() {
        assert_eq!(Isa::from_name("portable").unwrap(), Isa::Portable);
        assert_eq!(Isa::from_name(Isa::best().name()).unwrap(), Isa::best());
        let error = Isa::from_name("avx3").unwrap_err().to_string();
        assert!(error.contains("SRPIPE_SIMD=avx3") && error.contains("portable"), "{error}");
        for missing in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            let error = Isa::from_name(missing.name()).unwrap_err().to_string();
            assert!(error.contains("this machine does not support") && error.contains("portable"), "{error}");
        }
    }
}
