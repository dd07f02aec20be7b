"""The health APIs and a DNS server, simulated with faults to switch on: for the demo, the tests and the benchmarks."""
