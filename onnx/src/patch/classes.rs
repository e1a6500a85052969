//! How many classes a patch tells apart where it answers for its primary.

use super::template::{AFTER, LOW};
use super::{Attachment, Mode, Patch};
use crate::model::Dim;

impl Patch {
    /// The classes that it tells apart at a site that it replaces, where they are fewer than the site has places: those
    /// of a head that was made for so many, or as many as its manifest has labels.
    pub fn classes_at(&self, site: &str) -> Option<usize> {
        let manifest = self.manifest();
        let replaces = |a: &&Attachment| a.mode == Mode::Replace && a.site() == site;
        let (output, _) = manifest.attachments.iter().find(replaces)?.output();
        let graph = &self.model().graph;
        let filled = graph.nodes.iter().find(|node| {
            node.op == "Pad"
                && node.makes().any(|name| name == output)
                && node.input(2) == Some(LOW)
        });
        if filled.is_some()
            && let Some(Dim::Fixed(places)) = graph.output(output)?.shape.as_ref()?.last()
        {
            let after = graph.initializers.get(AFTER)?.values::<i64>().ok()?;
            return places.checked_sub(usize::try_from(*after.last()?).ok()?);
        }
        let labels = manifest.io.as_ref()?.outputs.as_ref()?.get(output)?.get("labels")?;
        labels.as_array().map(Vec::len)
    }
}
