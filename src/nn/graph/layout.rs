//! The memory layouts of parameters in PyTorch state dicts and in backends.

/// The layout of a parameter in a PyTorch state dict. In a backend, the layout is defined by the [`Op`](super::Op) that
/// uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Convolution: PyTorch's `(O, I, k, k)`, the backend's `(k, k, I, O)`.
    Conv { outputs: usize, inputs: usize, kernel: usize },
    /// Linear layer: PyTorch's `(O, I)`, the backend's `(I, O)`.
    Linear { outputs: usize, inputs: usize },
    /// Transposed convolution: PyTorch's `(I, O, 2, 2)`, the backend's `(I, 2, 2, O)`.
    UpConv { inputs: usize, outputs: usize },
    /// A vector: the same in both.
    Vector(usize),
}

impl Layout {
    /// Returns the number of values.
    pub fn len(self) -> usize {
        match self {
            Layout::Conv { outputs, inputs, kernel } => outputs * inputs * kernel * kernel,
            Layout::Linear { outputs, inputs } => outputs * inputs,
            Layout::UpConv { inputs, outputs } => inputs * outputs * 4,
            Layout::Vector(n) => n,
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns the shape in a PyTorch state dict.
    pub fn torch_shape(self) -> Vec<usize> {
        match self {
            Layout::Conv { outputs, inputs, kernel } => vec![outputs, inputs, kernel, kernel],
            Layout::Linear { outputs, inputs } => vec![outputs, inputs],
            Layout::UpConv { inputs, outputs } => vec![inputs, outputs, 2, 2],
            Layout::Vector(n) => vec![n],
        }
    }

    /// Reorders values from PyTorch's layout to the backend's.
    pub(in crate::nn) fn reorder_from_torch(self, values: &[f32]) -> Vec<f32> {
        self.permuted(values)
    }

    /// Reorders values from the backend's layout to PyTorch's.
    pub(in crate::nn) fn reorder_to_torch(self, values: &[f32]) -> Vec<f32> {
        let mut result = vec![0.0; values.len()];
        let order: Vec<usize> = (0..values.len()).collect();
        let indices = self.permuted(&order);
        for (value, index) in values.iter().zip(indices) {
            result[index] = *value;
        }
        result
    }

    /// Reorders values, or their indices, from PyTorch's layout to the backend's.
    fn permuted<T: Copy>(self, values: &[T]) -> Vec<T> {
        assert_eq!(values.len(), self.len());
        match self {
            Layout::Vector(_) => values.to_vec(),
            Layout::Linear { outputs, inputs } => transpose(values, outputs, inputs),
            Layout::Conv { outputs, inputs, kernel } => {
                // (O, I, K) to (K, I, O)
                let taps = kernel * kernel;
                let mut result = Vec::with_capacity(values.len());
                for tap in 0..taps {
                    for i in 0..inputs {
                        result.extend((0..outputs).map(|o| values[(o * inputs + i) * taps + tap]));
                    }
                }
                result
            }
            Layout::UpConv { inputs, outputs } => {
                // (I, O, 4) to (I, 4, O)
                let mut result = Vec::with_capacity(values.len());
                for i in 0..inputs {
                    result.extend(transpose(&values[i * outputs * 4..][..outputs * 4], outputs, 4));
                }
                result
            }
        }
    }
}

fn transpose<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}
