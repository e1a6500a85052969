//! Inputs that follow each other: a window that slides over a series, the frames of a video. What an input has in common
//! with the one before is not measured again.

use std::collections::VecDeque;

use backstitch_protocol::Problem;

use super::{Cancelled, Client, RunOptions};
use crate::analysis::{FeatureVector, Picture, Sliding, Subject};
use crate::input::{Input, invalid};
use crate::port::Port;
use crate::preprocessing::Preparation;
use crate::report::RunResult;
use crate::session::Stage;

/// Cells of a small picture, along each side, by which a frame is compared with the one that was measured.
const CELLS: usize = 16;

/// The root mean square difference of the cells' luminance up to which a frame keeps the features of the one measured.
const SAME: f64 = 0.02;

/// Frames after which one is measured anyway: noise and blur may change where the cells do not.
const MOST_FRAMES: usize = 15;

/// What is remembered from one input to the next.
#[derive(Clone, Debug)]
pub struct Stream(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Series(Window),
    Frames(Option<Frame>),
}

/// The newest moments of a series.
#[derive(Clone, Debug)]
struct Window {
    sliding: Sliding,
    recent: VecDeque<f32>,
    channels: usize,
    moments: usize,
    hop: usize,
    /// Moments until the next answer.
    due: usize,
}

/// The last frame that was measured.
#[derive(Clone, Debug)]
struct Frame {
    cells: Vec<f64>,
    features: FeatureVector,
    age: usize,
}

impl<P: Port> Client<P> {
    /// A stream of this library's inputs. Of a series, every `hop` moments are answered once there is a whole window;
    /// of pictures, every frame. Other libraries have none (`input_invalid`).
    pub fn stream(&self, hop: usize) -> Result<Stream, Problem> {
        self.check_open()?;
        match &self.library().preparation {
            Preparation::Series(series) => {
                if hop == 0 {
                    return Err(invalid("the hop is 0 moments".to_owned())
                        .with_hint("give how many moments lie between two answers"));
                }
                let sliding = Sliding::new(series.channels, series.rate_hz, series.window)?;
                Ok(Stream(Kind::Series(Window {
                    sliding,
                    recent: VecDeque::new(),
                    channels: series.channels,
                    moments: series.window,
                    hop,
                    due: series.window,
                })))
            }
            Preparation::Picture(_) => Ok(Stream(Kind::Frames(None))),
            Preparation::Text(_) | Preparation::Plain => {
                Err(invalid("this library's inputs do not follow each other".to_owned())
                    .with_hint("call run for each of them"))
            }
        }
    }

    /// Adds moments `[n, channels]`, or a frame, and answers what has become due, oldest first. What was added stays,
    /// also where an answer fails, as over a window with too many gaps; an input that is refused adds nothing.
    pub async fn push(
        &self,
        stream: &mut Stream,
        input: &Input,
        options: &RunOptions,
        cancelled: &Cancelled<'_>,
    ) -> Result<Vec<RunResult>, Problem> {
        match &mut stream.0 {
            Kind::Series(window) => {
                let values = window.accepted(input)?;
                let mut answers = Vec::new();
                let mut rest = values.as_slice();
                while !rest.is_empty() {
                    let began = self.port.now_ms();
                    let (due, features);
                    (rest, due) = window.add(rest)?;
                    if !due {
                        continue;
                    }
                    features = window.sliding.features();
                    let ms = self.port.now_ms() - began;
                    let given = window.given()?;
                    answers.push(self.answer_with(&given, features, ms, options, cancelled).await?);
                }
                Ok(answers)
            }
            Kind::Frames(last) => {
                self.push_frame(last, input, options, cancelled).await.map(|answer| vec![answer])
            }
        }
    }

    async fn push_frame(
        &self,
        last: &mut Option<Frame>,
        input: &Input,
        options: &RunOptions,
        cancelled: &Cancelled<'_>,
    ) -> Result<RunResult, Problem> {
        let mut pending = self.prepare_run(self.open_run(cancelled)?, input)?;
        let began = self.port.now_ms();
        let Subject::Picture(picture) = &pending.prepared.subject else {
            return self.complete(pending, options, cancelled).await;
        };
        let cells = cells(picture);
        let kept = last.as_mut().filter(|frame| frame.serves(&cells));
        let features = match kept {
            Some(frame) => {
                frame.age += 1;
                let ms = self.port.now_ms() - began;
                pending.stages.push(Stage { name: "analyse".to_owned(), ms });
                frame.features.clone()
            }
            None => {
                let features = self.analyse_here(&pending.prepared, &mut pending.stages);
                *last = Some(Frame { cells, features: features.clone(), age: 1 });
                features
            }
        };
        pending.features = Some(features);
        self.complete(pending, options, cancelled).await
    }

    async fn answer_with(
        &self,
        input: &Input,
        features: Option<FeatureVector>,
        ms: f64,
        options: &RunOptions,
        cancelled: &Cancelled<'_>,
    ) -> Result<RunResult, Problem> {
        let mut pending = self.prepare_run(self.open_run(cancelled)?, input)?;
        pending.features = features;
        pending.stages.push(Stage { name: "analyse".to_owned(), ms });
        self.complete(pending, options, cancelled).await
    }
}

impl Window {
    /// The numbers of moments that fit this series.
    fn accepted(&self, input: &Input) -> Result<Vec<f32>, Problem> {
        let channels = self.channels;
        let given = match input {
            Input::Tensor { shape, values } => Some((shape.as_slice(), values.clone())),
            Input::Bytes { shape, values } => {
                Some((shape.as_slice(), values.iter().map(|b| f32::from(*b)).collect()))
            }
            Input::Image { .. } | Input::Text(_) => None,
        };
        match given {
            Some(([_, columns], values)) if *columns == channels => Ok(values),
            Some(([_], values)) if channels == 1 => Ok(values),
            Some((shape, _)) => {
                Err(invalid(format!("the moments have the shape {shape:?}, not [n, {channels}]"))
                    .with_hint("give one row per moment and one column per channel"))
            }
            None => Err(invalid("this library takes series".to_owned())
                .with_hint(format!("give moments of shape [n, {channels}]"))),
        }
    }

    /// Adds moments up to the next answer; returns the rest, and whether that answer is due now.
    fn add<'a>(&mut self, values: &'a [f32]) -> Result<(&'a [f32], bool), Problem> {
        let taken = self.due.min(values.len() / self.channels);
        let (now, rest) = values.split_at(taken * self.channels);
        self.sliding.push(now)?;
        self.recent.extend(now);
        let most = self.moments * self.channels;
        self.recent.drain(..self.recent.len().saturating_sub(most));
        self.due -= taken;
        let due = self.due == 0;
        if due {
            self.due = self.hop;
        }
        Ok((rest, due))
    }

    /// The window as a caller would give it.
    fn given(&self) -> Result<Input, Problem> {
        Input::tensor(vec![self.moments, self.channels], self.recent.iter().copied().collect())
    }
}

impl Frame {
    fn serves(&self, cells: &[f64]) -> bool {
        if self.age >= MOST_FRAMES || cells.len() != self.cells.len() {
            return false;
        }
        let squares: f64 = self.cells.iter().zip(cells).map(|(a, b)| (a - b).powi(2)).sum();
        squares <= SAME * SAME * cells.len() as f64
    }
}

/// The mean luminance of each cell; a picture with fewer pixels than cells along a side has as many as it has pixels.
fn cells(picture: &Picture) -> Vec<f64> {
    let plane = &picture.luminance;
    let (across, down) = (plane.width.clamp(1, CELLS), plane.height.clamp(1, CELLS));
    let mut sums = vec![(0.0, 0.0); across * down];
    for (y, row) in plane.pixels.chunks_exact(plane.width.max(1)).enumerate() {
        let cells = &mut sums[(y * down / plane.height) * across..][..across];
        for (x, pixel) in row.iter().enumerate() {
            let (sum, count) = &mut cells[x * across / plane.width];
            *sum += f64::from(*pixel);
            *count += 1.0;
        }
    }
    sums.into_iter().map(|(sum, count)| sum / count).collect()
}
