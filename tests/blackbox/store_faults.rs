//! Ceph's own stores are killed, under load: one of three, which nobody notices, and two, of which its gateway says nothing at
//! all until they are back. Every other test has its bytes there too, so these run alone.

use calotype_tests::{Ceph, Engines};

use crate::engine_faults::{server, under_load};

#[test]
fn one_store_of_three_that_is_killed_is_not_noticed_and_two_only_cost_time() {
    let ceph = Ceph::connect();
    let mut server = server(Engines::default());
    under_load(&mut server, |_, load| {
        let first = ceph.kill_store(0);
        load.goes_on(12);
        let second = ceph.kill_store(1);
        load.stands_still();
        ceph.start_store(&first);
        load.goes_on(4);
        ceph.start_store(&second);
        ceph.wait_until_up();
        load.goes_on(4);
    });
}
