//! Simulated people who look through a misted, tinted window: views of real photographs, weakened and under a veil of
//! light in each person's own degree.

use backstitch_client::input::Input;
use backstitch_client::random::SplitMix;
use backstitch_protocol::Problem;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Files, Part, bad, generator, unpacked};
use crate::jpeg;
use crate::node::Labelled;
use crate::person::Person;
use crate::sampling::{lognormal, normal};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// Gzipped JSON.
    file: String,
    /// How many are drawn for each part.
    people: People,
    /// What a person has: so many photographs, one view of each.
    pictures: usize,
    /// Pixels of a view across and down.
    side: usize,
    window: Window,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct People {
    training: usize,
    tuning: usize,
    judging: usize,
}

/// What stands between a person and what they see: of a byte `b` of red, green or blue comes `gain · b + veil`.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    gain: [f64; 3],
    /// Between people: the standard deviation of the gain's logarithm.
    gain_spread: f64,
    veil: [f64; 3],
    /// Between people: the standard deviation of the veil.
    veil_spread: f64,
    /// The share of pictures without anything before them.
    clear: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    photographs: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    part: Whose,
    label: usize,
    /// Base64 of a JPEG file.
    jpeg: String,
}

/// Whose photograph it is.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Whose {
    Training,
    Tuning,
    Judging,
}

struct Photograph {
    width: usize,
    height: usize,
    rgba: Vec<u8>,
    label: usize,
}

pub(super) struct PhotographClients {
    people: People,
    pictures: usize,
    side: usize,
    window: Window,
    training: Vec<Photograph>,
    tuning: Vec<Photograph>,
    judging: Vec<Photograph>,
}

impl PhotographClients {
    pub(super) fn read(described: Description, files: &Files<'_>) -> Result<Self, Problem> {
        let Description { file: path, people, pictures, side, window } = described;
        window.check()?;
        let File { format, photographs } = unpacked(&path, &files(&path)?)?;
        if format != 1 || pictures == 0 || side == 0 || people.training == 0 {
            return Err(bad(format!(
                "{path}: format {format}, {pictures} pictures of side {side}, {} people who train; expected format 1 and positive numbers",
                people.training
            )));
        }
        let (training, tuning, judging) = (Vec::new(), Vec::new(), Vec::new());
        let mut clients = Self { people, pictures, side, window, training, tuning, judging };
        for listed in photographs {
            let photograph = Photograph::read(&listed, side)
                .map_err(|e| bad(format!("{path}: {}: {}", listed.name, e.detail())))?;
            let part = match listed.part {
                Whose::Training => &mut clients.training,
                Whose::Tuning => &mut clients.tuning,
                Whose::Judging => &mut clients.judging,
            };
            part.push(photograph);
        }
        for (people, photographs, part) in [
            (people.training, &clients.training, "training"),
            (people.tuning, &clients.tuning, "tuning"),
            (people.judging, &clients.judging, "judging"),
        ] {
            if people > 0 && photographs.len() < pictures {
                return Err(bad(format!(
                    "{path} has {} photographs for {part}, but a person has {pictures}",
                    photographs.len()
                )));
            }
        }
        Ok(clients)
    }

    pub(super) fn len(&self) -> usize {
        self.people.training
    }

    pub(super) fn client(&self, number: usize, seed: u64) -> Result<Person, Problem> {
        // Who comes again is the same person with the same pictures.
        let number = number % self.people.training;
        self.person(&self.training, generator(seed, number))
    }

    pub(super) fn held_out(&self, part: Part, seed: u64) -> Result<Vec<Person>, Problem> {
        let (people, photographs, seed) = match part {
            Part::Tuning => (self.people.tuning, &self.tuning, !seed.rotate_left(32)),
            Part::Judging => (self.people.judging, &self.judging, !seed),
        };
        (0..people).map(|number| self.person(photographs, generator(seed, number))).collect()
    }

    fn person(&self, photographs: &[Photograph], seed: u64) -> Result<Person, Problem> {
        let mut draws = SplitMix::new(seed);
        let own = self.window.of_one_person(&mut draws);
        let mut order: Vec<usize> = (0..photographs.len()).collect();
        draws.shuffle(&mut order);
        let mut examples = Vec::with_capacity(self.pictures);
        for at in order.into_iter().take(self.pictures) {
            let mut view = photographs[at].view(self.side, &mut draws);
            if draws.uniform() >= own.clear {
                own.cover(&mut view);
            }
            let input = Input::image(self.side as u32, self.side as u32, view)?;
            examples.push(Labelled::new(input, photographs[at].label));
        }
        Ok(Person::new(examples, draws.next_u64()))
    }
}

impl Window {
    fn check(&self) -> Result<(), Problem> {
        let spreads = self.gain_spread >= 0.0 && self.veil_spread >= 0.0;
        match spreads && self.gain.iter().all(|g| *g > 0.0) && (0.0..=1.0).contains(&self.clear) {
            true => Ok(()),
            false => Err(bad(format!(
                "window: gain {:?}, spreads {} and {}, clear {}; expected positive gains, spreads of at least 0 and a share",
                self.gain, self.gain_spread, self.veil_spread, self.clear
            ))),
        }
    }

    /// The same with one person's own numbers.
    fn of_one_person(mut self, draws: &mut SplitMix) -> Self {
        for (gain, veil) in self.gain.iter_mut().zip(&mut self.veil) {
            *gain *= lognormal(self.gain_spread, draws);
            *veil += self.veil_spread * normal(draws);
        }
        self
    }

    fn cover(&self, rgba: &mut [u8]) {
        for pixel in rgba.as_chunks_mut::<4>().0 {
            for ((byte, gain), veil) in pixel.iter_mut().zip(self.gain).zip(self.veil) {
                *byte = (gain * f64::from(*byte) + veil).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

impl Photograph {
    fn read(listed: &Listed, side: usize) -> Result<Self, Problem> {
        let file = STANDARD.decode(&listed.jpeg).map_err(|e| bad(e.to_string()))?;
        let (width, height, rgba) = jpeg::decode(&file)?;
        let (width, height) = (width as usize, height as usize);
        match width.min(height) >= side {
            true => Ok(Self { width, height, rgba, label: listed.label }),
            false => Err(bad(format!("{width} × {height} pixels have no view of side {side}"))),
        }
    }

    /// A part of it as large as a view, mirrored or not.
    fn view(&self, side: usize, draws: &mut SplitMix) -> Vec<u8> {
        let (left, top) = (draws.below(self.width - side + 1), draws.below(self.height - side + 1));
        let mirrored = draws.below(2) == 1;
        let mut view = Vec::with_capacity(4 * side * side);
        for row in self.rgba.chunks_exact(4 * self.width).skip(top).take(side) {
            let pixels = row.as_chunks::<4>().0.iter().skip(left).take(side);
            match mirrored {
                true => view.extend(pixels.rev().flatten()),
                false => view.extend(pixels.flatten()),
            }
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::{Value, json};

    use super::*;
    use crate::jpeg::tests::GREY;

    fn description() -> Value {
        json!({
            "file": "a", "people": {"training": 9, "tuning": 3, "judging": 4}, "pictures": 2, "side": 6,
            "window": {"gain": [0.5, 0.25, 1.0], "gain_spread": 0.0, "veil": [10, 20, 90], "veil_spread": 0.0, "clear": 0.0}
        })
    }

    /// Three photographs for each part, each with a label of its own: 0 to 2 train, 3 to 5 tune, 6 to 8 judge.
    fn file() -> Value {
        let parts = ["training", "tuning", "judging"];
        let photograph = |label: usize| json!({"name": format!("p{label}"), "part": parts[label / 3], "label": label, "jpeg": GREY});
        json!({"format": 1, "photographs": (0..9).map(photograph).collect::<Vec<_>>()})
    }

    fn read(description: &Value, file: &Value) -> Result<PhotographClients, Problem> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(file.to_string().as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        let described = serde_json::from_value(description.clone()).unwrap();
        PhotographClients::read(described, &|_| Ok(Cow::from(packed.clone())))
    }

    fn pixels(person: &Person) -> Vec<[u8; 3]> {
        let colours = |example: &Labelled| match &example.input {
            Input::Image { rgba, .. } => {
                rgba.as_chunks::<4>().0.iter().map(|p| [p[0], p[1], p[2]]).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        person.examples().iter().flat_map(colours).collect()
    }

    fn labels(people: &[Person]) -> BTreeSet<usize> {
        people.iter().flat_map(Person::examples).filter_map(Labelled::class).collect()
    }

    #[test]
    fn nobody_who_trains_has_a_photograph_of_who_tunes_or_judges() {
        let clients = read(&description(), &file()).unwrap();
        assert_eq!(clients.len(), 9);
        let training: Vec<Person> = (0..9).map(|n| clients.client(n, 1).unwrap()).collect();
        assert!(training.iter().all(|person| person.examples().len() == 2));
        assert_eq!(labels(&training), BTreeSet::from([0, 1, 2]));
        assert_eq!(labels(&clients.held_out(Part::Tuning, 1).unwrap()), BTreeSet::from([3, 4, 5]));
        assert_eq!(labels(&clients.held_out(Part::Judging, 1).unwrap()), BTreeSet::from([6, 7, 8]));
    }

    #[test]
    fn windows_weaken_and_veil_each_in_its_own_degree() {
        let clients = read(&description(), &file()).unwrap();
        let near = |found: [u8; 3], wanted: [u8; 3]| {
            found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 2)
        };
        let same = pixels(&clients.client(0, 1).unwrap());
        assert!(same.iter().all(|p| near(*p, [110, 70, 255])), "{:?}", same[0]);
        let mut clear = description();
        clear["window"]["clear"] = json!(1.0);
        let clear = pixels(&read(&clear, &file()).unwrap().client(0, 1).unwrap());
        assert!(clear.iter().all(|p| near(*p, [200, 200, 200])), "{:?}", clear[0]);
        let mut spread = description();
        spread["window"]["gain_spread"] = json!(0.3);
        let spread = read(&spread, &file()).unwrap();
        let of = |number| pixels(&spread.client(number, 1).unwrap());
        assert!(of(0).iter().all(|p| near(*p, of(0)[0])), "one window for all that a person sees");
        assert!(!near(of(0)[0], of(1)[0]), "{:?} {:?}", of(0)[0], of(1)[0]);
    }

    #[test]
    fn a_view_is_a_part_that_may_be_mirrored() {
        let rgba = (0..12u8).flat_map(|n| [n; 4]).collect();
        let photograph = Photograph { width: 4, height: 3, rgba, label: 0 };
        let mut draws = SplitMix::new(1);
        let firsts = |draws: &mut SplitMix| {
            let view = photograph.view(2, draws);
            [view[0], view[4], view[8], view[12]]
        };
        let seen: BTreeSet<[u8; 4]> = (0..200).map(|_| firsts(&mut draws)).collect();
        assert_eq!(seen.len(), 12, "three places across, two down, twice: {seen:?}");
        assert!(seen.contains(&[0, 1, 4, 5]) && seen.contains(&[7, 6, 11, 10]), "{seen:?}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_it_is() {
        let check = |description: &Value, file: &Value, says: &str| {
            let refused = read(description, file).err().unwrap();
            assert!(refused.detail().contains(says), "{refused} does not say {says}");
        };
        let described = |path: &str, value: Value| {
            let mut changed = description();
            *changed.pointer_mut(path).unwrap() = value;
            changed
        };
        check(&described("/pictures", json!(0)), &file(), "0 pictures");
        check(&described("/side", json!(0)), &file(), "side 0");
        check(&described("/side", json!(9)), &file(), "p0: 8 × 8 pixels have no view of side 9");
        check(&described("/people/training", json!(0)), &file(), "0 people who train");
        check(&described("/pictures", json!(4)), &file(), "3 photographs for training");
        check(&described("/window/gain/1", json!(0)), &file(), "0.0");
        check(&described("/window/veil_spread", json!(-1)), &file(), "-1");
        check(&described("/window/clear", json!(1.5)), &file(), "clear 1.5");
        let changed = |path: &str, value: Value| {
            let mut changed = file();
            *changed.pointer_mut(path).unwrap() = value;
            changed
        };
        check(&description(), &changed("/format", json!(2)), "format 2");
        check(&description(), &changed("/photographs/4/jpeg", json!("?")), "p4: ");
        check(
            &description(),
            &changed("/photographs/4/jpeg", json!("AAAA")),
            "not a readable JPEG",
        );
        check(&description(), &changed("/photographs/4/part", json!("all")), "all");
    }
}
