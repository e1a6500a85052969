//! A tensor in the engine's own memory, shared without copying between runs.

use std::fmt;
use std::sync::Arc;

use tract_onnx::prelude::{Datum, DatumType, IntoArcTensor, TDim, TValue, Tensor as EngineTensor};

use super::guard::engine_error;
use crate::error::{Code, Error, Result};
use crate::tensor::{DType, Element, Tensor};

/// A tensor that the engine can read at once. Cloning shares it; nothing ever writes to it.
#[derive(Clone)]
pub struct Value(Arc<EngineTensor>);

impl Value {
    /// A value of 32-bit floats; their count must be that of the shape.
    pub fn f32(shape: &[usize], values: &[f32]) -> Result<Self> {
        Self::copied(shape, values)
    }

    /// A value of 64-bit integers; their count must be that of the shape.
    pub fn i64(shape: &[usize], values: &[i64]) -> Result<Self> {
        Self::copied(shape, values)
    }

    /// A value whose little-endian bytes stand in these parts, one after the other.
    pub fn joined<'a>(
        dtype: DType,
        shape: &[usize],
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self> {
        let Self(mut tensor) = Self::zeros(dtype, shape)?;
        let mut left =
            Arc::get_mut(&mut tensor).map(EngineTensor::as_bytes_mut).unwrap_or_default();
        let whole = left.len();
        for part in parts {
            let (own, rest) = left.split_at_mut_checked(part.len()).ok_or_else(|| {
                let detail = format!("the parts have more than the {whole} bytes of {shape:?}");
                Error::new(Code::InputMismatch, detail)
            })?;
            own.copy_from_slice(part);
            left = rest;
        }
        match left.len() {
            0 => Ok(Self(tensor)),
            missing => Err(Error::new(
                Code::InputMismatch,
                format!("the parts lack {missing} of the {whole} bytes of {shape:?}"),
            )),
        }
    }

    /// Numbers as a float or integer type, as a model's input wants them; fractions of integers are cut off.
    /// Fails for types that hold no plain numbers.
    pub fn numbers(dtype: DType, shape: &[usize], values: &[f32]) -> Result<Self> {
        macro_rules! cast {
            ($type:ty) => {{
                let values: Vec<$type> = values.iter().map(|value| *value as $type).collect();
                Self::try_from(&Tensor::new(shape.to_vec(), &values)?)
            }};
        }
        match dtype {
            DType::F32 => Self::f32(shape, values),
            DType::F64 => cast!(f64),
            DType::I8 => cast!(i8),
            DType::U8 => cast!(u8),
            DType::I32 => cast!(i32),
            DType::I64 => cast!(i64),
            _ => Err(Error::new(
                Code::InputMismatch,
                format!("an input of type {} cannot be fed with numbers", dtype.name()),
            )),
        }
    }

    /// Zeros (`false` for booleans).
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self> {
        let tensor = EngineTensor::zero_dt(to_datum_type(dtype)?, shape)
            .map_err(|e| engine_error("zeros", &e))?;
        Ok(Self(Arc::new(tensor)))
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        from_datum_type(self.0.datum_type()).unwrap_or(DType::F32)
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The elements of a float32 value, in row-major order; an error names the dtype where it is another.
    pub fn f32s(&self) -> Result<&[f32]> {
        self.slice()
    }

    /// The elements of an int64 value, in row-major order; an error names the dtype where it is another.
    pub fn i64s(&self) -> Result<&[i64]> {
        self.slice()
    }

    /// Bytes of its elements.
    pub fn bytes(&self) -> u64 {
        self.0.as_bytes().len() as u64
    }

    /// A copy as a plain tensor.
    pub fn to_tensor(&self) -> Result<Tensor> {
        Tensor::from_bytes(self.dtype(), self.shape().to_vec(), self.0.as_bytes())
    }

    /// A copy, straight into the engine's memory: the input of every run goes this way.
    fn copied<T: Datum + Copy + Element>(shape: &[usize], values: &[T]) -> Result<Self> {
        match EngineTensor::from_shape(shape, values) {
            Ok(tensor) => Ok(Self(Arc::new(tensor))),
            // Says what is wrong with the count.
            Err(_) => Self::try_from(&Tensor::new(shape.to_vec(), values)?),
        }
    }

    fn slice<T: Datum>(&self) -> Result<&[T]> {
        let mismatch = || {
            let wanted = from_datum_type(T::datum_type()).map_or("other", DType::name);
            Error::new(
                Code::InputMismatch,
                format!("expected {wanted} values, found {}", self.dtype().name()),
            )
        };
        self.0.as_plain_ram().and_then(|view| view.as_slice::<T>().ok()).ok_or_else(mismatch)
    }

    /// What the engine yields: dimensions that it computed symbolically become int64.
    pub(super) fn from_engine(value: TValue) -> Result<Self> {
        let tensor = value.into_arc_tensor();
        let datum_type = tensor.datum_type();
        if datum_type == TDim::datum_type() {
            let cast =
                tensor.cast_to_dt(DatumType::I64).map_err(|e| engine_error("a dimension", &e))?;
            return Ok(Self(Arc::new(cast.into_owned())));
        }
        if from_datum_type(datum_type).is_none() || !tensor.is_plain_ram() {
            return Err(Error::new(
                Code::ModelUnsupported,
                format!("an output has the type {datum_type:?}"),
            ));
        }
        Ok(Self(tensor))
    }

    pub(super) fn to_engine(&self) -> TValue {
        TValue::from_const(self.0.clone())
    }
}

impl TryFrom<&Tensor> for Value {
    type Error = Error;

    /// Copies a plain tensor; fails for strings and bfloat16, which the engine lacks.
    fn try_from(tensor: &Tensor) -> Result<Self> {
        let datum_type = to_datum_type(tensor.dtype())?;
        let mut copy = EngineTensor::zero_dt(datum_type, tensor.shape())
            .map_err(|e| engine_error("a tensor", &e))?;
        copy.as_bytes_mut().copy_from_slice(tensor.bytes());
        Ok(Self(Arc::new(copy)))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype().name(), self.shape())
    }
}

pub(super) fn to_datum_type(dtype: DType) -> Result<DatumType> {
    Ok(match dtype {
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::F16 => DatumType::F16,
        DType::I8 => DatumType::I8,
        DType::I16 => DatumType::I16,
        DType::I32 => DatumType::I32,
        DType::I64 => DatumType::I64,
        DType::U8 => DatumType::U8,
        DType::U16 => DatumType::U16,
        DType::U32 => DatumType::U32,
        DType::U64 => DatumType::U64,
        DType::Bool => DatumType::Bool,
        DType::BF16 | DType::String => {
            return Err(Error::new(
                Code::ModelUnsupported,
                format!("the engine has no {}", dtype.name()),
            )
            .with_hint("convert the tensor to float32"));
        }
    })
}

pub(super) fn from_datum_type(datum_type: DatumType) -> Option<DType> {
    Some(match datum_type.unquantized() {
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        DatumType::F16 => DType::F16,
        DatumType::I8 => DType::I8,
        DatumType::I16 => DType::I16,
        DatumType::I32 => DType::I32,
        DatumType::I64 => DType::I64,
        DatumType::U8 => DType::U8,
        DatumType::U16 => DType::U16,
        DatumType::U32 => DType::U32,
        DatumType::U64 => DType::U64,
        DatumType::Bool => DType::Bool,
        DatumType::TDim => DType::I64,
        _ => return None,
    })
}
