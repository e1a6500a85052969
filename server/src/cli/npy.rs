//! Tensors in `.npy` files, NumPy's format.

use std::path::Path;

use backstitch_onnx::{DType, Tensor};
use npyz::{Order, TypeChar, WriterBuilder};

use super::files::{self, Outcome};

/// Reads a tensor: bool, integers and floats of either byte order, in C or Fortran order.
pub(super) fn read(path: &Path) -> Outcome<Tensor> {
    let bytes = files::read(path)?;
    parse(&bytes).map_err(|cause| format!("{}: {cause}", path.display()).into())
}

fn parse(bytes: &[u8]) -> Outcome<Tensor> {
    let file = crate::npy::open(bytes)?;
    let shape: Vec<usize> =
        file.shape().iter().map(|size| usize::try_from(*size)).collect::<Result<_, _>>()?;
    let npyz::DType::Plain(kind) = file.dtype() else {
        return Err("records are not supported; save one plain array".into());
    };
    let fortran = file.order() == Order::Fortran;
    macro_rules! load {
        ($type:ty) => {{
            let values: Vec<$type> = file.into_vec()?;
            Tensor::new(
                shape.clone(),
                &if fortran { to_row_major(&values, &shape) } else { values },
            )?
        }};
    }
    Ok(match (kind.type_char(), kind.size_field()) {
        (TypeChar::Bool, _) => load!(bool),
        (TypeChar::Float, 4) => load!(f32),
        (TypeChar::Float, 8) => load!(f64),
        (TypeChar::Int, 1) => load!(i8),
        (TypeChar::Int, 2) => load!(i16),
        (TypeChar::Int, 4) => load!(i32),
        (TypeChar::Int, 8) => load!(i64),
        (TypeChar::Uint, 1) => load!(u8),
        (TypeChar::Uint, 2) => load!(u16),
        (TypeChar::Uint, 4) => load!(u32),
        (TypeChar::Uint, 8) => load!(u64),
        // The crate has no half floats; their bytes stand at the end of the file, little-endian on all but museum pieces.
        (TypeChar::Float, 2) if !fortran => {
            let length = shape.iter().product::<usize>().saturating_mul(2);
            let from =
                bytes.len().checked_sub(length).ok_or("the file is shorter than its array")?;
            Tensor::from_bytes(DType::F16, shape, &bytes[from..])?
        }
        _ => {
            return Err(format!(
                "arrays of type {kind} are not supported; use float32, int64 or another plain type"
            )
            .into());
        }
    })
}

/// The elements of an array that is stored with its first dimension fastest.
fn to_row_major<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut index = vec![0usize; shape.len()];
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        let mut position = 0;
        for (at, size) in index.iter().zip(shape).rev() {
            position = position * size + at;
        }
        ordered.extend(values.get(position).copied());
        for (at, size) in index.iter_mut().zip(shape).rev() {
            *at += 1;
            if *at < *size {
                break;
            }
            *at = 0;
        }
    }
    ordered
}

/// Writes a tensor, whole or not at all; half floats are widened to float32.
pub(super) fn write(path: &Path, tensor: &Tensor) -> Outcome<()> {
    let shape: Vec<u64> = tensor.shape().iter().map(|size| *size as u64).collect();
    let mut bytes = Vec::new();
    macro_rules! store {
        ($values:expr) => {{
            let values = $values;
            let mut writer = npyz::WriteOptions::new()
                .default_dtype()
                .shape(&shape)
                .writer(&mut bytes)
                .begin_nd()?;
            writer.extend(values)?;
            writer.finish()?;
        }};
    }
    match tensor.dtype() {
        DType::F32 => store!(tensor.values::<f32>()?),
        DType::F64 => store!(tensor.values::<f64>()?),
        DType::I8 => store!(tensor.values::<i8>()?),
        DType::I16 => store!(tensor.values::<i16>()?),
        DType::I32 => store!(tensor.values::<i32>()?),
        DType::I64 => store!(tensor.values::<i64>()?),
        DType::U8 => store!(tensor.values::<u8>()?),
        DType::U16 => store!(tensor.values::<u16>()?),
        DType::U32 => store!(tensor.values::<u32>()?),
        DType::U64 => store!(tensor.values::<u64>()?),
        DType::Bool => store!(tensor.values::<bool>()?),
        DType::F16 | DType::BF16 => store!(tensor.to_f64()?.into_iter().map(|value| value as f32)),
        DType::String => return Err("strings cannot be written as .npy".into()),
    }
    files::write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_survive_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensor.npy");
        let tensors = [
            Tensor::new(vec![2, 3], &[1.5f32, -2.0, 0.0, f32::MAX, 4.0, 5.0]).unwrap(),
            Tensor::scalar(7i64),
            Tensor::vector(&[true, false]),
            Tensor::new(vec![0, 3], &[] as &[u8]).unwrap(),
        ];
        for tensor in tensors {
            write(&path, &tensor).unwrap();
            assert_eq!(read(&path).unwrap(), tensor);
        }
    }

    #[test]
    fn the_first_dimension_may_be_fastest() {
        assert_eq!(to_row_major(&[1, 4, 2, 5, 3, 6], &[2, 3]), [1, 2, 3, 4, 5, 6]);
    }
}
