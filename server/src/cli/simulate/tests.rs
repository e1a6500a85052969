//! Whole simulations of a small library.

use backstitch_edge::person::Person;

use super::devices::Material;
use super::*;
use crate::registry::{SAMPLES, Source};

fn command(arguments: &[&str]) -> Simulate {
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        simulate: Simulate,
    }
    let arguments = ["simulate"].iter().chain(arguments);
    <Alone as clap::Parser>::parse_from(arguments).simulate
}

async fn simulate(arguments: &[&str]) -> Result<Report> {
    let command = command(arguments);
    let setting = Setting::read(&command)?;
    let runtime = Handle::current();
    let work = move || match &command.http {
        Some(url) => remote::run(&setting, &runtime, url),
        None if command.no_privacy => plain::run(&setting, &runtime),
        None => rehearse(&setting, &runtime),
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_figures_and_private_rounds_help() {
    let quick = ["motion", "--rounds", "5", "--json", "--seed", "3"];
    let first = simulate(&quick).await.unwrap();
    assert_eq!(first, simulate(&quick).await.unwrap());
    let other = simulate(&["motion", "--rounds", "1", "--json", "--seed", "4"]).await.unwrap();
    assert_ne!(first.rounds[1], other.rounds[1]);
    let last = first.rounds.last().unwrap();
    assert_eq!(last.round.number, 5);
    assert!(last.loss_change.ci95[1] < 0.0, "{last:?}");
    let spent: Vec<f64> = first.rounds.iter().filter_map(|line| line.round.epsilon).collect();
    assert!(spent.is_sorted() && spent[0] > 0.5 && *spent.last().unwrap() <= 4.0, "{spent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_chosen_on_others_than_judge() {
    let quick = ["motion", "--rounds", "1", "--no-privacy", "--json"];
    let judging = simulate(&quick).await.unwrap();
    let tuning = simulate(&[&quick[..], &["--tuning"]].concat()).await.unwrap();
    assert_ne!(judging.rounds[0].loss, tuning.rounds[0].loss);
    let said = |report: &Report, part: &str| {
        serde_json::to_value(report).unwrap()["part"].as_str() == Some(part)
    };
    assert!(said(&judging, "judging") && said(&tuning, "tuning"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_few_examples_is_judged_on_each_once() {
    let setting = Setting::read(&command(&["motion", "--json"])).unwrap();
    let runtime = Handle::current();
    let counted = move || -> Result<(usize, usize)> {
        let stage = Stage::open(&setting, &runtime)?;
        let opened = Opened::of(&stage.onlooker(&setting)?, &setting)?;
        let whole = setting.population.client(0, 1)?;
        let few = Person::new(whole.examples()[..3].to_vec(), 1);
        let all = |person: &Person| Ok::<_, Problem>(Material::of(person, &opened)?.all().len());
        let counts = (all(&few)?, all(&whole)? - whole.examples().len());
        stage.close();
        Ok(counts)
    };
    assert_eq!(tokio::task::spawn_blocking(counted).await.unwrap().unwrap(), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_classes_is_judged_by_its_loss_alone() {
    let report = simulate(&["anomalies", "--rounds", "3", "--json"]).await.unwrap();
    assert!(report.rounds.iter().all(|line| line.accuracy.is_none()), "{}", report.summary());
    let (first, last) = (&report.rounds[0], &report.rounds[3]);
    assert!(last.loss_change.ci95[1] < -0.5 * first.loss, "{first:?} {last:?}");
    assert!(report.summary().contains("loss"), "{}", report.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn averaging_without_privacy_is_as_good_and_spends_nothing() {
    let report = simulate(&["motion", "--rounds", "3", "--no-privacy", "--json"]).await.unwrap();
    let last = report.rounds.last().unwrap();
    assert!(last.loss_change.ci95[1] < 0.0 && last.round.epsilon.is_none(), "{last:?}");
    assert!(report.rounds.iter().all(|line| line.round.clipped == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_devices_over_http_teach_each_other_too() {
    let report = simulate(&["motion", "--http", "--rounds", "2", "--json"]).await.unwrap();
    assert_eq!(report.rounds.len(), 3, "{}", report.summary());
    let last = report.rounds.last().unwrap();
    assert!(
        last.round.epsilon.is_some_and(|spent| spent > 0.5) && last.loss < report.rounds[0].loss
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_with_what_to_do() {
    let refused = async |arguments: &[&str]| simulate(arguments).await.unwrap_err();
    let noise = refused(&["motion", "--cohort", "16"]).await;
    assert!(noise.is(Code::PrivacyInvalid) && noise.detail().contains("at least 40"), "{noise}");
    let few = refused(&["motion", "--clients", "20"]).await;
    assert!(few.hint().is_some_and(|hint| hint.contains("--cohort")), "{few}");
    let many = refused(&["motion", "--clients", "1000"]).await;
    assert!(many.detail().contains("128"), "{many}");
    let nobody = refused(&["fashion-compact"]).await;
    assert!(nobody.detail().contains("federated.json"), "{nobody}");
}

#[test]
fn every_split_belongs_to_a_task_with_a_cohort_that_learns() {
    let described = SAMPLES.iter().filter(|library| {
        Source::Embedded(library).read_if_present("federated.json").unwrap().is_some()
    });
    let described: Vec<&&str> = described.collect();
    assert!(described.len() >= 5, "{described:?}");
    for library in described {
        let setting = Setting::read(&command(&[library])).unwrap();
        let descriptor = setting.source.read("library.json").unwrap();
        let descriptor = crate::registry::LibraryDescriptor::from_bytes(&descriptor).unwrap();
        assert_eq!(descriptor.tasks.len(), 1, "{library}: devices contribute to one task");
        assert!(!setting.population.unit().is_empty());
    }
}
