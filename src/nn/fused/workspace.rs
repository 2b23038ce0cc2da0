//! Reusable memory: aligned buffers, and pools that tasks on several threads share.

use std::sync::Mutex;

use super::simd::PANEL;

/// A buffer aligned to a cache line. Grows but never shrinks.
#[derive(Default)]
pub(super) struct AlignedBuffer {
    data: Vec<f32>,
}

impl AlignedBuffer {
    /// Returns a pointer to at least `len` numbers, whose values are unspecified.
    pub(super) fn at_least(&mut self, len: usize) -> *mut f32 {
        if self.data.len() < len + PANEL {
            // Free the old memory first. The system provides the new, zeroed memory page by page when it is accessed.
            self.data = Vec::new();
            self.data = vec![0.0; len + PANEL];
        }
        let start = self.data.as_mut_ptr();
        let skip = start.align_offset(4 * PANEL);
        // SAFETY: at most a cache line is skipped, and the buffer is one line longer than `len`.
        unsafe { start.add(skip) }
    }
}

/// The memory of one task.
#[derive(Default)]
pub(super) struct Workspace {
    pub(super) arena: AlignedBuffer,
    pub(super) scratch: AlignedBuffer,
}

/// A pool of reusable objects, created on demand.
pub(super) struct Pool<T> {
    free: Mutex<Vec<T>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { free: Mutex::new(vec![]) }
    }
}

impl<T> Pool<T> {
    /// Returns a free object, or a new one from `create` if none is free.
    pub(super) fn acquire(&self, create: impl FnOnce() -> T) -> T {
        let free = self.free.lock().unwrap_or_else(|e| e.into_inner()).pop();
        free.unwrap_or_else(create)
    }

    /// Returns an object to the pool.
    pub(super) fn release(&self, item: T) {
        self.free.lock().unwrap_or_else(|e| e.into_inner()).push(item);
    }
}

/// A pool of vectors of any length.
#[derive(Default)]
pub(super) struct BufferPool {
    free: Mutex<Vec<Vec<f32>>>,
}

impl BufferPool {
    /// Returns a vector of `len` unspecified numbers: the smallest free one with sufficient capacity, so that vectors
    /// do not all grow to the maximum length.
    pub(super) fn acquire(&self, len: usize) -> Vec<f32> {
        let smallest_fit = {
            let mut free = self.free.lock().unwrap_or_else(|e| e.into_inner());
            let smallest = (0..free.len()).filter(|&i| free[i].capacity() >= len).min_by_key(|&i| free[i].capacity());
            smallest.map(|i| free.swap_remove(i))
        };
        let mut buffer = smallest_fit.unwrap_or_default();
        buffer.resize(len, 0.0);
        buffer
    }

    /// Returns a vector to the pool.
    pub(super) fn release(&self, buffer: Vec<f32>) {
        self.free.lock().unwrap_or_else(|e| e.into_inner()).push(buffer);
    }
}
