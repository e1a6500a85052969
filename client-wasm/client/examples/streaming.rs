//! What a hop of a series costs in a sliding window, beside measuring the whole window again:
//! `cargo run --release -p backstitch-client --example streaming`.

use std::hint::black_box;
use std::time::Instant;

use backstitch_client::analysis::{Series, Sliding, Subject, analyse};
use backstitch_client::random::SplitMix;
use backstitch_protocol::Problem;

const CHANNELS: usize = 3;
const HOP: usize = 16;

fn main() -> Result<(), Problem> {
    println!("{CHANNELS} channels, hops of {HOP} moments, mean of a hop in µs");
    println!("| window | sliding | whole | ratio |\n| --- | --- | --- | --- |");
    for window in [128, 512, 2048, 8192] {
        let mut draws = SplitMix::new(1);
        let moments = window + 400 * HOP;
        let values: Vec<f32> = (0..moments * CHANNELS).map(|_| draws.uniform() as f32).collect();
        let mut sliding = Sliding::new(CHANNELS, 50.0, window)?;
        sliding.push(&values[..window * CHANNELS])?;
        let (mut streamed, mut whole) = (Vec::new(), Vec::new());
        for (hop, new) in values[window * CHANNELS..].chunks_exact(HOP * CHANNELS).enumerate() {
            let began = Instant::now();
            sliding.push(new)?;
            black_box(sliding.features());
            streamed.push(began.elapsed().as_secs_f64() * 1e6);
            let end = window + (hop + 1) * HOP;
            let newest = &values[(end - window) * CHANNELS..end * CHANNELS];
            let began = Instant::now();
            let rows = (0..CHANNELS).flat_map(|c| newest.iter().skip(c).step_by(CHANNELS).copied());
            let series = Series::new(CHANNELS, 50.0, rows.collect())?;
            black_box(analyse(&Subject::Series(series)));
            whole.push(began.elapsed().as_secs_f64() * 1e6);
        }
        // The mean, so that the hops that measure the rhythm anew count too.
        let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len() as f64;
        let (streamed, whole) = (mean(&streamed), mean(&whole));
        println!("| {window} | {streamed:.1} | {whole:.1} | {:.3} |", streamed / whole);
    }
    Ok(())
}
