//! Each crate from elsewhere has a line in ARCHITECTURE.md that says why it is here.

#[test]
fn each_dependency_has_its_reason() {
    let manifest = include_str!("../Cargo.toml");
    let (_, section) = manifest.split_once("# Crates from elsewhere").expect("the manifest has that section");
    let names = section.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(" = "));
    let (_, table) =
        include_str!("../ARCHITECTURE.md").split_once("## Dependencies").expect("the page has that section");
    let named: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split(", "))
        .collect();
    let missing: Vec<&str> = names.map(|(name, _)| name).filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "no reason is given for {missing:?}");
    assert!(named.len() > 10, "the table was read: {named:?}");
}
