use super::*;

fn filter(patterns: &[&str]) -> Filter {
    Filter::new(patterns.iter().map(|&p| p.to_owned()).collect(), None)
}

#[test]
fn everything_is_selected_without_patterns() {
    let all = filter(&[]);
    assert!(all.is_everything());
    for kind in Kind::ALL {
        assert!(all.wants(kind));
    }
    assert!(all.selects("host/xtask/a::b"));
    assert_eq!(all.kernel_globs("1cpu"), ["*"]);
}

#[test]
fn only_cuts_down_to_one_kind() {
    let only = Filter::new(vec![], Some(Kind::Boot));
    assert!(only.wants(Kind::Boot));
    assert!(!only.wants(Kind::Host));
    assert!(only.selects("boot/cpus-4"));
    assert!(!only.selects("kernel/1cpu/ipi.pairs"));
    assert!(only.kernel_globs("1cpu").is_empty());
}

#[test]
fn a_plain_pattern_names_kernel_cases() {
    let one = filter(&["ipi.*"]);
    assert!(one.wants(Kind::Kernel));
    assert!(!one.wants(Kind::Host));
    assert!(!one.wants(Kind::Boot));
    assert!(one.selects("kernel/1cpu/ipi.pairs"));
    assert!(!one.selects("kernel/1cpu/percpu.pairs"));
    assert!(!one.selects("host/xtask/ipi.pairs"));
    assert_eq!(one.kernel_globs("8cpu-4node"), ["ipi.*"]);
}

#[test]
fn a_suite_alone_means_all_its_cases() {
    let one = filter(&["ipi"]);
    assert!(one.selects("kernel/1cpu/ipi.pairs"));
    assert!(!one.selects("kernel/1cpu/ipi2.pairs"));
    assert_eq!(one.kernel_globs("1cpu"), ["ipi.*"]);
}

#[test]
fn full_names_select_kind_and_shape() {
    let one = filter(&["kernel/4cpu*/ipi.*", "boot/panic-*"]);
    assert!(one.wants(Kind::Kernel));
    assert!(one.wants(Kind::Boot));
    assert!(!one.wants(Kind::Host));
    assert!(one.selects("kernel/4cpu-2node/ipi.pairs"));
    assert!(!one.selects("kernel/1cpu/ipi.pairs"));
    assert!(one.selects("boot/panic-de"));
    assert!(!one.selects("boot/cpus-4"));
    assert_eq!(one.kernel_globs("4cpu-2node"), ["ipi.*"]);
    assert!(one.kernel_globs("1cpu").is_empty());
}

#[test]
fn a_kind_alone_selects_all_of_it() {
    let host = filter(&["host"]);
    assert!(host.wants(Kind::Host));
    assert!(host.selects("host/xtask/a"));
    assert!(!host.selects("boot/cpus-4"));
    let kernel = filter(&["kernel"]);
    assert_eq!(kernel.kernel_globs("1cpu"), ["*"]);
    assert!(kernel.selects("kernel/1cpu/ipi.pairs"));
}

#[test]
fn a_star_may_span_parts() {
    let host = filter(&["host/*glob*"]);
    assert!(host.selects("host/xtask/test::filter::glob_star"));
    let any = filter(&["*/xtask/*"]);
    assert!(any.wants(Kind::Host));
    assert!(any.selects("host/xtask/a"));
    let kernel = filter(&["kernel/*ipi*"]);
    assert_eq!(kernel.kernel_globs("1cpu"), ["*ipi*"]);
    assert!(kernel.selects("kernel/1cpu/ipi.pairs"));
}

#[test]
fn all_cases_of_one_shape() {
    assert_eq!(filter(&["kernel/1cpu"]).kernel_globs("1cpu"), ["*"]);
    assert!(
        filter(&["kernel/1cpu"])
            .kernel_globs("4cpu-2node")
            .is_empty()
    );
    assert_eq!(filter(&["kernel/1cpu/*"]).kernel_globs("1cpu"), ["*"]);
}
