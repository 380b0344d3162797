//! The simulation of a whole cluster: a fixed number of seeds, as many more as `MINIK8S_SEEDS` asks for, proof that a seed
//! is repeatable, and proof that it finds what it should (`mutations`).

mod mutations;

use minik8s_core::testkit::simulation::{Simulation, seeds};
use std::time::Duration;

#[test]
fn the_cluster_survives_every_seed() {
    let lines = seeds::play("simulation::the_cluster_survives_every_seed", 1..5, &Simulation::new());
    lines.unwrap_or_else(|why| panic!("{why}")).iter().for_each(|line| println!("{line}"));
}

/// To the byte and to the microsecond: the report has a digest of every commit and every fault.
#[test]
fn one_seed_is_one_run() {
    let simulation = Simulation::new().faults_for(Duration::from_secs(40));
    let play = |seed: u64| {
        let lines = seeds::play("simulation::one_seed_is_one_run", seed..seed + 1, &simulation);
        lines.unwrap_or_else(|why| panic!("{why}")).concat()
    };
    let first = play(7);
    // In the process that plays the one seed there is nothing to compare.
    if !seeds::is_alone() {
        assert_eq!(first, play(7));
        assert_ne!(first.replace("seed 7", "seed 8"), play(8));
    } else {
        println!("{first}");
    }
}
