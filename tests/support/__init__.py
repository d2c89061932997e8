"""What tests of several layers share: builders, twins, real servers on loopback."""
