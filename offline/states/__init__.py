"""States of the residual stream: samples, the rules that choose states, and the folder that keeps them."""
