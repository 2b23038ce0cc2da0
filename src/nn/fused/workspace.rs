//! Memory that steps reuse: aligned buffers, and a pool of them for the tasks that run at once.

use std::sync::Mutex;

use super::simd::PANEL;

/// Numbers at an address that is a multiple of a cache line. Grows and never shrinks.
#[derive(Default)]
pub struct AlignedBuffer {
    data: Vec<f32>,
}

impl AlignedBuffer {
    /// The start of at least `len` numbers, whose values are whatever was left there.
    pub fn at_least(&mut self, len: usize) -> *mut f32 {
        if self.data.len() < len + PANEL {
            // Freed before it is replaced; zeroed memory is lent by the system page by page as it is touched.
            self.data = Vec::new();
            self.data = vec![0.0; len + PANEL];
        }
        let start = self.data.as_mut_ptr();
        let skip = start.align_offset(4 * PANEL);
        // SAFETY: at most a line is skipped, and the buffer is a line longer than asked.
        unsafe { start.add(skip) }
    }
}

/// What one task works in.
#[derive(Default)]
pub struct Workspace {
    pub arena: AlignedBuffer,
    pub scratch: AlignedBuffer,
}

/// Things made when there is none left, and given back after use.
pub struct Pool<T> {
    free: Mutex<Vec<T>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { free: Mutex::new(vec![]) }
    }
}

impl<T> Pool<T> {
    pub fn take(&self, make: impl FnOnce() -> T) -> T {
        let free = self.free.lock().unwrap_or_else(|e| e.into_inner()).pop();
        free.unwrap_or_else(make)
    }

    pub fn give(&self, item: T) {
        self.free.lock().unwrap_or_else(|e| e.into_inner()).push(item);
    }
}

/// A pool of lists of any length.
#[derive(Default)]
pub struct BufferPool {
    free: Mutex<Vec<Vec<f32>>>,
}

impl BufferPool {
    /// A list of `len` numbers, whatever they are: in the smallest memory that is free and has room, lest each grow to
    /// the length of the longest.
    pub fn take(&self, len: usize) -> Vec<f32> {
        let fitting = {
            let mut free = self.free.lock().unwrap_or_else(|e| e.into_inner());
            let smallest = (0..free.len()).filter(|&i| free[i].capacity() >= len).min_by_key(|&i| free[i].capacity());
            smallest.map(|i| free.swap_remove(i))
        };
        let mut buffer = fitting.unwrap_or_default();
        buffer.resize(len, 0.0);
        buffer
    }

    pub fn give(&self, buffer: Vec<f32>) {
        self.free.lock().unwrap_or_else(|e| e.into_inner()).push(buffer);
    }
}
