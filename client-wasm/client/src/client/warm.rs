//! Measures patches before they are needed: so that the first selection rests on this device's own times.

use backstitch_onnx::Value;
use backstitch_protocol::Problem;

use super::Client;
use super::estimate::stage_of;
use crate::port::Port;
use crate::random::SplitMix;
use crate::session::Plan;

impl<P: Port> Client<P> {
    /// Compiles one patch that was never measured, runs it once, on noise, and notes what it and the segments took, and
    /// whether the patch changes anything. Returns whether there is more to do; meant to be called again and again while
    /// nothing else wants the thread.
    pub fn warm(&self) -> Result<bool, Problem> {
        self.check_open()?;
        let live = self.live();
        let session = &live.library.session;
        let cold = |slot: &&super::Slot| {
            let measured = self.cost.borrow().estimate(&stage_of(&slot.shared)).measured;
            !measured && slot.shared.compiled.fault().is_none()
        };
        let mut slots = live.slots.iter().filter(cold);
        let Some(slot) = slots.next() else { return Ok(false) };
        if slot.shared.compiled.ready().is_err() {
            return Ok(true);
        }
        slot.shared.has_effect(session)?;
        let shape = session.input().1;
        let mut draws = SplitMix::new(1);
        let noise: Vec<f32> = (0..shape.iter().product()).map(|_| draws.uniform() as f32).collect();
        let input = Value::f32(shape, &noise)?;
        let plan = Plan::of(session, &[&slot.shared.compiled])?;
        let stitched = [slot.shared.stitched()];
        let ran = session.run(&plan, &stitched, &input, None, &|| self.port.now_ms())?;
        let mut cost = self.cost.borrow_mut();
        for stage in &ran.stages {
            match stage.name.starts_with("patch:") {
                true => cost.observe(&stage_of(&slot.shared), stage.ms),
                false => cost.observe(&stage.name, stage.ms),
            }
        }
        Ok(true)
    }
}
