"""CASS-Pipeline: from raw medical pictures to the tables of the CASS paper, exactly and restartably."""
