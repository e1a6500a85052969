//! Colours of a picture: how saturated, how colourful, and the two that fill most of it.

/// Levels per channel of the coarse palette.
const LEVELS: usize = 4;

/// What the colours are.
pub(super) struct Colours {
    pub(super) saturation: f64,
    pub(super) colourfulness: f64,
    /// The two fullest cells of the palette.
    pub(super) fullest: [Cell; 2],
}

/// A cell of the palette: the share of the pixels in it, and their mean red, green and blue.
#[derive(Clone, Copy, Default)]
pub(super) struct Cell {
    pub(super) share: f64,
    pub(super) mean: [f64; 3],
}

/// Measures planes of red, green and blue, each 0 to 1.
pub(super) fn colours(planes: &[Vec<f32>; 3]) -> Colours {
    let count = planes[0].len() as f64;
    let (mut saturation, mut opponent) = (0.0, [[0.0f64; 2]; 2]);
    let mut palette = [(0u32, [0.0f64; 3]); LEVELS * LEVELS * LEVELS];
    for ((r, g), b) in planes[0].iter().zip(&planes[1]).zip(&planes[2]) {
        let pixel = [r, g, b].map(|level| f64::from(*level));
        let [r, g, b] = pixel;
        let high = r.max(g).max(b);
        saturation += if high > 0.0 { (high - r.min(g).min(b)) / high } else { 0.0 };
        for (sums, value) in opponent.iter_mut().zip([r - g, 0.5 * (r + g) - b]) {
            *sums = [sums[0] + value, sums[1] + value * value];
        }
        let cell = pixel.iter().fold(0, |cell, level| {
            LEVELS * cell + ((level * LEVELS as f64) as usize).min(LEVELS - 1)
        });
        let (n, sums) = &mut palette[cell];
        *n += 1;
        sums.iter_mut().zip(pixel).for_each(|(sum, level)| *sum += level);
    }
    let mean = opponent.map(|[sum, _]| sum / count);
    let variance =
        opponent.map(|[sum, squares]| (squares / count - (sum / count).powi(2)).max(0.0));
    Colours {
        saturation: saturation / count,
        colourfulness: (variance[0] + variance[1]).sqrt() + 0.3 * mean[0].hypot(mean[1]),
        fullest: fullest(&palette, count),
    }
}

/// Of cells that are equally full, the one with the smaller red, then green, then blue comes first.
fn fullest(palette: &[(u32, [f64; 3])], count: f64) -> [Cell; 2] {
    let mut cells: Vec<&(u32, [f64; 3])> = palette.iter().collect();
    cells.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    [0, 1].map(|rank| match cells[rank] {
        (0, _) => Cell::default(),
        (n, sums) => {
            Cell { share: f64::from(*n) / count, mean: sums.map(|sum| sum / f64::from(*n)) }
        }
    })
}
