//! Tensors as plain values: a dtype, a shape and little-endian bytes, shared without copying.

use std::sync::Arc;

use crate::error::{Code, Error, Result};

/// Element types of ONNX that this crate carries. Only some of them can be differentiated or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of the ONNX specification")]
pub enum DType {
    F32,
    F64,
    F16,
    BF16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    String,
}

impl DType {
    /// Bytes of one element; strings have none.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::String => 0,
        }
    }

    /// The name used in manifests and messages, such as `float32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::Bool => "bool",
            Self::String => "string",
        }
    }

    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }
}

/// A dense tensor. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Arc<[u8]>,
}

/// Native element types with a [`DType`].
pub trait Element: Copy + Sized {
    /// The dtype of a tensor of these.
    const DTYPE: DType;
    /// Appends the little-endian bytes.
    fn write(self, out: &mut Vec<u8>);
    /// Reads from exactly `DTYPE.size()` bytes.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($type:ty => $dtype:ident),*) => {$(
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<Self>()];
                raw.copy_from_slice(bytes);
                Self::from_le_bytes(raw)
            }
        }
    )*};
}
element!(f32 => F32, f64 => F64, i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn write(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
    fn read(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}

impl Tensor {
    /// A tensor from raw little-endian bytes; the length must be that of the shape.
    pub fn from_bytes(
        dtype: DType,
        shape: Vec<usize>,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<Self> {
        let bytes = bytes.into();
        let expected = element_count(&shape)
            .and_then(|n| n.checked_mul(dtype.size()))
            .ok_or_else(|| Error::new(Code::ModelTooLarge, format!("shape {shape:?} overflows")))?;
        if dtype == DType::String || expected != bytes.len() {
            return Err(Error::new(
                Code::ModelInvalid,
                format!(
                    "{} tensor of shape {shape:?} needs {expected} bytes, not {}",
                    dtype.name(),
                    bytes.len()
                ),
            ));
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// A tensor of native values; their count must be that of the shape.
    pub fn new<T: Element>(shape: Vec<usize>, values: &[T]) -> Result<Self> {
        let mut bytes = Vec::with_capacity(values.len() * T::DTYPE.size());
        for value in values {
            value.write(&mut bytes);
        }
        Self::from_bytes(T::DTYPE, shape, bytes)
    }

    /// A tensor with no dimensions.
    pub fn scalar<T: Element>(value: T) -> Self {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        Self { dtype: T::DTYPE, shape: Vec::new(), bytes: bytes.into() }
    }

    /// A one-dimensional tensor.
    pub fn vector<T: Element>(values: &[T]) -> Self {
        let mut bytes = Vec::with_capacity(values.len() * T::DTYPE.size());
        for value in values {
            value.write(&mut bytes);
        }
        Self { dtype: T::DTYPE, shape: vec![values.len()], bytes: bytes.into() }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The values as native elements; an error names both dtypes where they differ.
    pub fn values<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype != T::DTYPE {
            return Err(Error::new(
                Code::InputMismatch,
                format!("expected a {} tensor, found {}", T::DTYPE.name(), self.dtype.name()),
            ));
        }
        Ok(self.bytes.chunks_exact(T::DTYPE.size()).map(T::read).collect())
    }

    /// The values converted to f64, from any numeric dtype.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        let each =
            |f: fn(&[u8]) -> f64| self.bytes.chunks_exact(self.dtype.size()).map(f).collect();
        Ok(match self.dtype {
            DType::F32 => each(|b| f64::from(f32::read(b))),
            DType::F64 => each(f64::read),
            DType::F16 => each(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f64()),
            DType::BF16 => each(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f64()),
            DType::I8 => each(|b| f64::from(i8::read(b))),
            DType::I16 => each(|b| f64::from(i16::read(b))),
            DType::I32 => each(|b| f64::from(i32::read(b))),
            DType::I64 => each(|b| i64::read(b) as f64),
            DType::U8 => each(|b| f64::from(u8::read(b))),
            DType::U16 => each(|b| f64::from(u16::read(b))),
            DType::U32 => each(|b| f64::from(u32::read(b))),
            DType::U64 => each(|b| u64::read(b) as f64),
            DType::Bool => each(|b| f64::from(u8::from(bool::read(b)))),
            DType::String => {
                return Err(Error::new(
                    Code::ModelUnsupported,
                    "a string tensor has no numeric value",
                ));
            }
        })
    }

    /// Whether every float is finite; integers always are.
    pub fn is_finite(&self) -> bool {
        match self.dtype {
            DType::F32 => self.bytes.chunks_exact(4).all(|b| f32::read(b).is_finite()),
            _ if self.dtype.is_float() => {
                self.to_f64().is_ok_and(|v| v.iter().all(|x| x.is_finite()))
            }
            _ => true,
        }
    }

    /// The same elements under another shape of equal count.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self> {
        Self::from_bytes(self.dtype, shape, self.bytes.clone())
    }
}

/// The product of the dimensions, or nothing where it overflows.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let tensor = Tensor::new(vec![2, 2], &[1.0f32, -2.0, 3.5, f32::MIN_POSITIVE]).unwrap();
        assert_eq!(tensor.values::<f32>().unwrap(), [1.0, -2.0, 3.5, f32::MIN_POSITIVE]);
        assert_eq!(tensor.values::<i64>().unwrap_err().code(), Code::InputMismatch);
    }

    #[test]
    fn a_length_that_is_not_the_shapes_is_refused() {
        assert_eq!(Tensor::new(vec![3], &[1.0f32]).unwrap_err().code(), Code::ModelInvalid);
        assert_eq!(
            Tensor::from_bytes(DType::F32, vec![usize::MAX, 2], vec![]).unwrap_err().code(),
            Code::ModelTooLarge
        );
    }

    #[test]
    fn not_a_number_is_seen() {
        assert!(!Tensor::vector(&[0.0f32, f32::NAN]).is_finite());
        assert!(Tensor::vector(&[i64::MAX]).is_finite());
    }
}
