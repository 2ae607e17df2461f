"""What is asked of a crystal before DFT or a synthesis.

- `settings`: of all these
- `charge`: oxidation states that balance, or the bonding that has none
- `known_types`: the known crystals whose ions could be exchanged to give it
- `phonons`: phonons by finite displacements
- `modes`: following imaginary modes
- `elastic`: elastic constants
- `diffraction`: powder patterns, calculated and measured
- `pattern_match`: which crystals explain a measured pattern
- `verifier`: all that is found out about one crystal
- `verdict`: one verdict, in words
"""
