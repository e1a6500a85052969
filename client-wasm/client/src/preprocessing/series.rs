//! From a series with gaps to a window of the model's length.
//!
//! Rows are moments, columns are channels. The model sees the newest window; gaps are bridged by straight lines, and held
//! level at the ends. Analysis sees the same window before that, in its own units.

use std::ops::Deref;

use backstitch_protocol::Problem;
use backstitch_protocol::preprocessing::{self as described, SeriesLayout};

use super::Prepared;
use crate::analysis::{self, Subject};
use crate::input::{Input, invalid};

/// Prepares series as a library wants them.
#[derive(Clone, Debug, PartialEq)]
pub struct Series(pub(super) described::Series);

impl Deref for Series {
    type Target = described::Series;

    fn deref(&self) -> &described::Series {
        &self.0
    }
}

impl Series {
    /// The model's input of a series `[moments, channels]`, or `[moments]` where there is one channel.
    pub fn prepare(&self, input: &Input) -> Result<Prepared, Problem> {
        let values = self.newest(input)?;
        let mut normal = vec![0.0; values.len()];
        for channel in 0..self.channels {
            let bridged = self.bridged(&values, channel)?;
            let mean = self.mean.get(channel).copied().unwrap_or(0.0);
            let std = self.std.get(channel).copied().unwrap_or(1.0);
            for (moment, value) in bridged.into_iter().enumerate() {
                let at = match self.layout {
                    SeriesLayout::Nct => channel * self.window + moment,
                    SeriesLayout::Ntc => moment * self.channels + channel,
                };
                normal[at] = ((value - mean) / std) as f32;
            }
        }
        let rows = (0..self.channels)
            .flat_map(|channel| values.iter().skip(channel).step_by(self.channels).copied());
        let seen = analysis::Series::new(self.channels, self.rate_hz, rows.collect())?;
        Ok(Prepared { shape: self.shape(), values: normal, subject: Subject::Series(seen) })
    }

    /// The last `window` moments.
    fn newest(&self, input: &Input) -> Result<Vec<f32>, Problem> {
        let wanted = format!("[{} or more, {}]", self.window, self.channels);
        let (shape, values) = match input {
            Input::Tensor { shape, values } => (shape, values.clone()),
            Input::Bytes { shape, values } => {
                (shape, values.iter().map(|b| f32::from(*b)).collect())
            }
            Input::Image { .. } | Input::Text(_) => {
                return Err(invalid("this library takes series".to_owned())
                    .with_hint(format!("give numbers of shape {wanted}, one row per moment")));
            }
        };
        let moments = match shape.as_slice() {
            [moments] | [1, moments] if self.channels == 1 => *moments,
            [moments, channels] | [1, moments, channels] if *channels == self.channels => *moments,
            _ => {
                return Err(invalid(format!("the series has the shape {shape:?}, not {wanted}"))
                    .with_hint("give one row per moment and one column per channel"));
            }
        };
        let first = moments.checked_sub(self.window).ok_or_else(|| {
            invalid(format!("the series has {moments} moments, the model needs {}", self.window))
                .with_hint("wait for more of it; mark missing moments by NaN")
        })?;
        Ok(values[first * self.channels..].to_vec())
    }

    /// One channel with straight lines over its gaps.
    fn bridged(&self, values: &[f32], channel: usize) -> Result<Vec<f64>, Problem> {
        let mut own: Vec<f64> =
            values.iter().skip(channel).step_by(self.channels).map(|v| f64::from(*v)).collect();
        let known: Vec<usize> = (0..own.len()).filter(|i| !own[*i].is_nan()).collect();
        let missing = 1.0 - known.len() as f64 / own.len() as f64;
        let (Some(first), Some(last)) = (known.first(), known.last()) else {
            return Err(gappy(channel, missing, self.max_missing));
        };
        if missing > self.max_missing {
            return Err(gappy(channel, missing, self.max_missing));
        }
        let (level, end) = (own[*first], own[*last]);
        own[..*first].fill(level);
        own[last + 1..].fill(end);
        for pair in known.windows(2) {
            let (from, to) = (own[pair[0]], own[pair[1]]);
            let steps = (pair[1] - pair[0]) as f64;
            for (at, value) in own[pair[0]..pair[1]].iter_mut().enumerate() {
                *value = from + at as f64 / steps * (to - from);
            }
        }
        Ok(own)
    }
}

fn gappy(channel: usize, missing: f64, limit: f64) -> Problem {
    let percent = |share: f64| share * 100.0;
    invalid(format!(
        "{:.0} % of channel {channel} is missing, at most {:.0} % may be",
        percent(missing),
        percent(limit)
    ))
    .with_hint("wait for a window with fewer gaps")
}

#[cfg(test)]
mod tests {
    use backstitch_protocol::problem::Code;

    use super::super::Preprocessing;
    use super::*;

    const GAP: f32 = f32::NAN;

    fn series(json: serde_json::Value) -> Series {
        match Preprocessing::from_json(&json).unwrap() {
            Preprocessing::Series(series) => series,
            other => panic!("no series: {other:?}"),
        }
    }

    fn prepared(series: &Series, shape: &[usize], values: &[f32]) -> Result<Prepared, Problem> {
        series.prepare(&Input::tensor(shape.to_vec(), values.to_vec())?)
    }

    #[test]
    fn the_newest_window_is_normalised_channel_by_channel() {
        let both = series(
            serde_json::json!({"window": 2, "channels": 2, "mean": [1.0, 0.0], "std": [2.0, 1.0]}),
        );
        let values = [9.0, 9.0, 1.0, 10.0, 3.0, 20.0];
        let found = prepared(&both, &[3, 2], &values).unwrap();
        assert_eq!((found.shape, found.values), (vec![1, 2, 2], vec![0.0, 1.0, 10.0, 20.0]));
        let rows = Series(described::Series { layout: SeriesLayout::Ntc, ..both.0 });
        assert_eq!(prepared(&rows, &[1, 3, 2], &values).unwrap().values, [0.0, 10.0, 1.0, 20.0]);
        let seen = analysis::Series::new(2, 1.0, vec![1.0, 3.0, 10.0, 20.0]).unwrap();
        assert_eq!(found.subject, Subject::Series(seen));
    }

    #[test]
    fn gaps_are_bridged_and_analysis_still_sees_them() {
        let one = series(serde_json::json!({"window": 6, "channels": 1}));
        let found = prepared(&one, &[6], &[GAP, 2.0, GAP, GAP, 8.0, GAP]).unwrap_err();
        assert!(found.detail().contains("67 %"), "{found}");
        let found = prepared(&one, &[6], &[GAP, 2.0, GAP, 4.0, 8.0, GAP]).unwrap();
        assert_eq!(found.values, [2.0, 2.0, 3.0, 4.0, 8.0, 8.0]);
        assert!(format!("{:?}", found.subject).contains("[NaN, 2.0, NaN, 4.0, 8.0, NaN]"));
    }

    #[test]
    fn what_is_no_series_is_refused() {
        let two = series(serde_json::json!({"window": 2, "channels": 2}));
        for (shape, values) in [
            (vec![1, 2], vec![0.0; 2]),
            (vec![2, 3], vec![0.0; 6]),
            (vec![4], vec![0.0; 4]),
            (vec![2, 2], vec![GAP; 4]),
            (vec![2, 2], vec![0.0, 1.0, f32::INFINITY, 0.0]),
            (vec![2, 2], vec![0.0, 1.0, f32::NEG_INFINITY, 0.0]),
        ] {
            let problem = prepared(&two, &shape, &values).unwrap_err();
            assert!(problem.is(Code::InputInvalid), "{shape:?} {values:?}: {problem}");
        }
    }
}
