import worker from './index.js';

export const { active, slot, sessions, tagged } = worker;
export default worker;
